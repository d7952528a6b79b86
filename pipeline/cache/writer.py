"""New shards: pictures are gathered in memory, written aside by a thread of their own, then renamed.

A picture that is larger than a shard is not gathered: the thread that adds it writes it from where it lies.
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

from .codec import CachedImage
from .permissions import FILE_MODE, PART, SUFFIX, open_regular_file, partial_shards_in
from .shard import write_shard

SHARD_BYTES = 16 << 20
"""Pictures are written when they fill so much, at the end of an epoch, and when a feed is closed. More would be slower:
to touch new memory costs the kernel more than to write it."""
NUM_BUFFERS = 3
"""One is filled while others are written; when the disk is slower than that, makers wait for it."""
MAX_BUFFER_BYTES = NUM_BUFFERS * SHARD_BYTES
ROW_BYTES = 64
"""At most, of a picture's row beside its pixels."""


class ShardBuilder:
    """Pictures on their way into a shard."""

    def __init__(self, buffer: np.ndarray) -> None:
        self.buffer = buffer
        self.keys: dict[bytes, None] = {}
        self._sizes: list[tuple[int, int]] = []
        self._offsets = [0]

    @property
    def used(self) -> int:
        """Bytes of pictures so far."""
        return self._offsets[-1]

    def add(self, key: bytes, picture: CachedImage) -> None:
        """Copy a picture; there must be room."""
        end = self.used + len(picture.data)
        self.buffer[self.used : end] = picture.data
        self.keys[key] = None
        self._sizes.append(picture.size)
        self._offsets.append(end)

    def write(self, file: BinaryIO) -> None:
        """Write them as a shard."""
        keys = np.frombuffer(b"".join(self.keys), "<u8").reshape(-1, 2)
        write_shard(file, keys, self._sizes, np.array(self._offsets), self.buffer)


class ShardWriter:
    """Writes shards into one folder. Any thread may add.

    Args:
        folder: is there.
        shard_bytes: of pictures in a shard; ``NUM_BUFFERS`` times as many are held in memory at most.
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
        """Keys of the pictures since the last flush that are shards of their own."""
        self._lock = threading.Lock()
        self._count_lock = threading.Lock()
        """Held for a moment only, never while the disk is waited for."""
        self.written_bytes = 0
        """Of finished shards."""
        self.taken_bytes = 0
        """Of pictures and their rows so far, written or not."""

    def is_large(self, picture: CachedImage) -> bool:
        """Say whether a picture is larger than a shard: it is not for ``add`` but for ``reserve``."""
        return len(picture.data) > self._shard_bytes

    def reserve(self, key: bytes, picture: CachedImage) -> bool:
        """Count a large picture that ``write_alone`` will write, unless another thread has it already."""
        with self._count_lock:
            if key in self._single_keys:
                return False
            self._single_keys.add(key)
            self.taken_bytes += len(picture.data) + ROW_BYTES
            return True

    def write_single(self, key: bytes, picture: CachedImage) -> None:
        """Write a large picture that was reserved as a shard of its own, without copying it. Waits for the disk."""
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
        """Take a picture, unless it is in the shard that is being gathered; copies it. Returns whether it did.

        Where the disk is slower than the pictures come, it waits for a buffer.
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
        """Write what is gathered, wait for it, and return the shards that were finished since the last time.

        Raises:
            OSError: a shard could not be written; it is not there.
        """
        with self._lock:
            self._submit()
            with self._count_lock:
                futures, self._futures = self._futures, []
                self._single_keys.clear()
        wait(futures)
        return [one.result() for one in futures]

    def failed(self) -> OSError | None:
        """Return why a shard could not be written, without waiting; None where none failed so far."""
        with self._count_lock:
            done = [one for one in self._futures if one.done()]
        for one in done:
            error = one.exception()
            if isinstance(error, OSError):
                return error
        return None

    def close(self) -> None:
        """End the thread until more is added; what was sent to it is waited for."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown()


@contextmanager
def new_shard_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """Open a new shard; when all went well it gets its name.

    Nobody waits for the disk: a shard that a power cut tears is known by its checksums, and made again.
    """
    aside, file = _create_locked(folder)
    path = folder / f"{aside.name.removeprefix('.').removesuffix(PART)}{SUFFIX}"
    with file:
        try:
            yield file, path
            file.flush()
            # Here a network's file system says that it is full; the lock stays.
            os.close(os.dup(file.fileno()))
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def _create_locked(folder: Path) -> tuple[Path, BinaryIO]:
    """Create a file with a lock that says that its writer lives.

    Nobody waits for the lock, and the kernel lets it go with the process. Whoever clears leftovers may come between
    creating and locking; then another file is created.
    """
    while True:
        aside = folder / f".{uuid4().hex}{PART}"
        file = open(aside, "xb", opener=_open_for_one)  # noqa: SIM115  (only this takes an opener)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        except OSError:  # a file system without locks; there nothing is cleared either
            return aside, file
        if os.fstat(file.fileno()).st_nlink:
            return aside, file
        file.close()


def _open_for_one(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def remove_partial_shards(folder: Path) -> int:
    """Delete what dead processes were writing; what has a living writer is locked and stays. Returns how many."""
    num_cleared = 0
    for path in partial_shards_in(folder):
        with suppress(OSError), open_regular_file(path, shared=True) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            num_cleared += 1
    return num_cleared
