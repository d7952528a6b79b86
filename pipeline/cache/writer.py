"""Shard writer: buffers images in memory and writes shards atomically in a background thread.

An image larger than a shard is not buffered: the thread that adds it writes it directly.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

import numpy as np

from ..atomic_io import create_locked
from .codec import CachedImage
from .permissions import FILE_MODE, PART, SUFFIX, open_regular_file, partial_shards_in
from .shard import write_shard

SHARD_BYTES = 16 << 20
"""A shard is written at this size, at the end of an epoch, and when a feed is closed. Larger buffers would be slower:
touching new memory costs the kernel more than writing it."""
NUM_BUFFERS = 3
"""One is filled while others are written; if the disk is slower, ``put`` blocks."""
MAX_BUFFER_BYTES = NUM_BUFFERS * SHARD_BYTES
ROW_BYTES = 64
"""Upper bound of an image's row besides its pixels."""


class ShardBuilder:
    """In-memory buffer of the images of one shard."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.buffer = buffer
        self.keys: dict[bytes, None] = {}
        self._sizes: list[tuple[int, int]] = []
        self._offsets = [0]

    @property
    def used(self) -> int:
        """Image bytes so far."""
        return self._offsets[-1]

    def add(self, key: bytes, picture: CachedImage) -> None:
        """Copy an image into the buffer, which must have enough space."""
        end = self.used + len(picture.data)
        self.buffer[self.used : end] = picture.data
        self.keys[key] = None
        self._sizes.append(picture.size)
        self._offsets.append(end)

    def write(self, file: BinaryIO) -> None:
        """Write the images as a shard."""
        keys = np.frombuffer(b"".join(self.keys), "<u8").reshape(-1, 2)
        write_shard(file, keys, self._sizes, np.array(self._offsets), self.buffer)


class ShardWriter:
    """Writes shards into one folder. Thread-safe.

    Args:
        folder: an existing folder.
        shard_bytes: image bytes per shard; at most ``NUM_BUFFERS`` times as many are held in memory.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._shard_bytes = shard_bytes
        self._free: list[np.ndarray] = []
        self._free_buffers = threading.Semaphore(NUM_BUFFERS)
        self._builder: ShardBuilder | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._futures: list[Future[Path]] = []
        self._single_keys: set[bytes] = set()
        """Keys of large images written as single shards since the last flush."""
        self._lock = threading.Lock()
        self._count_lock = threading.Lock()
        """Held briefly, never while waiting for the disk."""
        self.written_bytes = 0
        """Bytes of finished shards."""
        self.taken_bytes = 0
        """Bytes of added images and their rows, written or not."""

    def is_large(self, picture: CachedImage) -> bool:
        """Return whether an image is larger than a shard and needs ``reserve`` instead of ``add``."""
        return len(picture.data) > self._shard_bytes

    def reserve(self, key: bytes, picture: CachedImage) -> bool:
        """Register a large image for ``write_single``; return False if another thread already did."""
        with self._count_lock:
            if key in self._single_keys:
                return False
            self._single_keys.add(key)
            self.taken_bytes += len(picture.data) + ROW_BYTES
            return True

    def write_single(self, key: bytes, picture: CachedImage) -> None:
        """Write a reserved large image as a single shard, without copying it. Waits for the disk."""
        done: Future[Path] = Future()
        with self._count_lock:
            self._futures.append(done)
        try:
            ends = np.array([0, len(picture.data)])
            keys = np.frombuffer(key, "<u8").reshape(-1, 2)
            with new_shard_file(self._folder) as (file, path):
                write_shard(file, keys, [picture.size], ends, picture.data)
            self._count(path)
            done.set_result(path)
        except OSError as error:
            done.set_exception(error)
        except BaseException as error:
            done.set_exception(error)
            raise

    def add(self, key: bytes, picture: CachedImage) -> bool:
        """Copy an image into the current shard unless it is already there; return whether it was added.

        Waits for a free buffer if the disk is slower.
        """
        with self._lock:
            builder = self._builder_for(len(picture.data))
            if key in builder.keys:
                return False
            builder.add(key, picture)
            with self._count_lock:
                self.taken_bytes += len(picture.data) + ROW_BYTES
            return True

    def _builder_for(self, num_bytes: int) -> ShardBuilder:
        if self._builder is not None and self._builder.used + num_bytes > len(self._builder.buffer):
            self._submit()
        if self._builder is None:
            self._free_buffers.acquire()
            with self._count_lock:
                buffer = self._free.pop() if self._free else None
            self._builder = ShardBuilder(np.empty(self._shard_bytes, np.uint8) if buffer is None else buffer)
        return self._builder

    def _submit(self) -> None:
        if self._builder is not None and self._builder.used:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, "lightwell-cache")
            with self._count_lock:
                self._futures.append(self._executor.submit(self._write, self._builder))
            self._builder = None

    def _write(self, builder: ShardBuilder) -> Path:
        try:
            with new_shard_file(self._folder) as (file, path):
                builder.write(file)
            self._count(path)
            return path
        finally:
            with self._count_lock:
                self._free.append(builder.buffer)
            self._free_buffers.release()

    def _count(self, path: Path) -> None:
        num_bytes = path.stat().st_size
        with self._count_lock:
            self.written_bytes += num_bytes

    def flush(self) -> list[Path]:
        """Write buffered images, wait for them, and return the shards finished since the last flush.

        Raises:
            OSError: a shard could not be written; it does not exist.
        """
        with self._lock:
            self._submit()
            with self._count_lock:
                futures, self._futures = self._futures, []
                self._single_keys.clear()
        wait(futures)
        return [one.result() for one in futures]

    def failed(self) -> OSError | None:
        """Return the error of a failed write without waiting; None if none failed so far."""
        with self._count_lock:
            done = [one for one in self._futures if one.done()]
        for one in done:
            error = one.exception()
            if isinstance(error, OSError):
                return error
        return None

    def close(self) -> None:
        """Stop the background thread after pending writes; it restarts if more is added."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


@contextmanager
def new_shard_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a temporary file that is renamed to a shard on success.

    There is no fsync: a shard truncated by a power failure is detected by its checksums and produced again.
    """
    aside, file = create_locked(
        lambda: folder / f".{uuid4().hex}{PART}", lambda path, flags: os.open(path, flags, FILE_MODE)
    )
    path = folder / f"{aside.name.removeprefix('.').removesuffix(PART)}{SUFFIX}"
    with file:
        try:
            yield file, path
            file.flush()
            # Network file systems report a full disk on close; the lock is kept.
            os.close(os.dup(file.fileno()))
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def remove_partial_shards(folder: Path) -> int:
    """Delete the partial shards of dead processes and return how many; those of live writers are locked and kept."""
    num_cleared = 0
    for path in partial_shards_in(folder):
        with suppress(OSError), open_regular_file(path, shared=True) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            num_cleared += 1
    return num_cleared
