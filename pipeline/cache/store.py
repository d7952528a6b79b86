"""The cache as an engine uses it: find pictures, keep new ones, publish what was written."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import OutputError
from .codec import CachedImage
from .lookup import NOT_FOUND, CacheLookup
from .permissions import RECIPE_FILE, ForeignFileError, folder_bytes, make_folders, shards_in
from .recipe import Recipe
from .shard import DamagedShard, Shard, open_shard
from .writer import MAX_BUFFER_BYTES, NUM_BUFFERS, ROW_BYTES, SHARD_BYTES, ShardWriter, remove_partial_shards

_log = logging.getLogger(__name__)

RESCAN_INTERVAL_S = 3.0
"""How often, while pictures are missing, an epoch looks for shards that other processes have finished."""
SHARDS_IN_LIMIT = 16
LEAST_SHARD_BYTES = 1 << 16
OVERHEAD_BYTES = 4096
"""At most, of a shard beside its pictures and their rows."""


@dataclass(slots=True)
class CacheCounts:
    """What the cache did for one feed, in pictures."""

    hits: int = 0
    misses: int = 0
    kept: int = 0
    """Added to shards."""
    damaged: int = 0
    """Shards that were thrown away."""


class PixelCache:
    """Pictures of one recipe. Any thread may find and keep; one thread publishes; leave it with ``close``.

    Nothing is thrown away to make room: when ``max_bytes`` are reached, nothing more is added until they are not. A
    damaged shard is deleted as a whole, and its pictures are made again. A disk that is full, or any other failure
    to write, ends adding for this run with one warning.

    What is there is found while the disk is slow: there is a lock for the table and one for the counts, which are held for
    a moment, one for keeping, where threads wait for buffers, and one for looking at the folder, which a
    thread that finds does not wait for.

    Args:
        folder: of the cache, the plan's ``cache.dir``.
        recipe: how its pictures are made.
        max_bytes: of all recipes together.
        shard_bytes: of pictures in a shard; by default what fits the limits.
        buffer_bytes: that pictures may take on their way to the disk.
        shared: accept a folder and shards that other users own or may write.

    Raises:
        OutputError: the folder cannot be made.
        PlanError: others own the folder or may write to it, and it is not shared.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        *,
        max_bytes: int | None = None,
        shard_bytes: int | None = None,
        buffer_bytes: int = MAX_BUFFER_BYTES,
        shared: bool = False,
    ) -> None:
        self._root = folder
        self.recipe = recipe
        self.fingerprint = recipe.fingerprint()
        self.folder = folder / self.fingerprint
        self._max_bytes = max_bytes
        self._shared = shared
        self._disabled = False
        self._lookup_lock = threading.Lock()
        self._count_lock = threading.Lock()
        self._put_lock = threading.Lock()
        self._scan_lock = threading.Lock()
        self.counts = CacheCounts()
        self._make_folder()
        self._writer = ShardWriter(self.folder, shard_bytes or choose_shard_bytes(max_bytes, buffer_bytes))
        self._lookup = CacheLookup()
        self._touched: set[Path] = set()
        self._warned_foreign = False
        self._seen_mtime_ns = -1
        self._scanned_s = 0.0
        self._others_bytes = 0
        self._scan()

    def _make_folder(self) -> None:
        try:
            make_folders(self._root, self.folder, shared=self._shared)
            if not (self.folder / RECIPE_FILE).exists():
                self.recipe.save(self.folder)
            remove_partial_shards(self.folder)
        except OutputError as error:  # of the recipe; the folder is there
            self._disable(error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)))
        except OSError as error:
            if not self.folder.is_dir():
                raise OutputError(
                    f"cache.dir: expected a folder that can be written, got {str(self._root)!r} "
                    f"({error.strerror or error}); choose another, or leave cache out"
                ) from error
            self._disable(error)

    def contains(self, keys: np.ndarray) -> bool:
        """Say whether all of some keys, shape (n, 2), are there; looks at none of them."""
        return all(self._lookup.contains(keys))

    def get(self, keys: np.ndarray) -> list[CachedImage | None]:
        """Find pictures by their keys, shape (n, 2); None for those that are not there or are damaged."""
        table = self._lookup
        found: list[CachedImage | None] = []
        for shard_number, number in table.search(keys):
            shard = None if shard_number == NOT_FOUND else table.shards[shard_number]
            found.append(None if shard is None else self._read(shard, number))
        hits = sum(packed is not None for packed in found)
        self._count(hits=hits, misses=len(found) - hits)
        due = hits < len(found) and time.monotonic() - self._scanned_s > RESCAN_INTERVAL_S
        if due and self._scan_lock.acquire(blocking=False):
            try:
                self._scan()
            finally:
                self._scan_lock.release()
        return found

    def _count(self, **more: int) -> None:
        with self._count_lock:
            for name, number in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + number)

    def _read(self, shard: Shard, number: int) -> CachedImage | None:
        try:
            packed = shard.read(number)
        except DamagedShard:
            self._drop(shard)
            return None
        if shard.path not in self._touched:
            self._touched.add(shard.path)
            with suppress(OSError):  # only tells pruning that it is in use
                os.utime(shard.path, follow_symlinks=False)
        return packed

    def discard(self, picture: CachedImage) -> None:
        """Throw away the shard of a picture that was found and cannot be decoded."""
        if picture.shard is not None:
            self._drop(picture.shard)

    def _drop(self, shard: Shard) -> None:
        with self._lookup_lock:
            if shard not in self._lookup.shards:
                return
            self._lookup = self._lookup.without(shard)
        self._count(damaged=1)
        with suppress(OSError):  # a folder that cannot be written: every run finds it anew
            shard.path.unlink(missing_ok=True)

    def put(self, pictures: Sequence[tuple[np.ndarray, CachedImage]]) -> None:
        """Add pictures with their keys, unless they are there or there is no room; does not hold on to their memory.

        Where the disk is slower than pictures come, it waits for it.
        """
        if self._disabled or not pictures:
            return
        there = self._lookup.contains(np.stack([key for key, _ in pictures]))
        new = [
            (key.tobytes(), picture) for (key, picture), old in zip(pictures, there, strict=True) if not old
        ]
        error = self._writer.failed()
        if error is not None:
            self._disable(error)
            return
        large: list[tuple[bytes, CachedImage]] = []
        with self._put_lock:
            for key, picture in new:
                if not self._has_room(picture):
                    break
                if not self._writer.is_large(picture):
                    self._count(kept=self._writer.add(key, picture))
                elif self._writer.reserve(key, picture):
                    large.append((key, picture))
        for key, picture in large:
            self._writer.write_single(key, picture)
            self._count(kept=1)

    def _has_room(self, picture: CachedImage) -> bool:
        if self._max_bytes is None:
            return True
        used = self._others_bytes + self._writer.taken_bytes + OVERHEAD_BYTES
        return used + len(picture.data) + ROW_BYTES <= self._max_bytes

    def publish(self) -> None:
        """Finish the shards of the pictures kept so far and look for those of other processes. Waits for the disk."""
        try:
            written = self._writer.flush()
        except OSError as error:
            self._disable(error)
            written = []
        with self._scan_lock:
            self._scan(written)

    def _scan(self, written: Sequence[Path] = ()) -> None:
        """Open shards that are new in the folder; ``written`` are our own. One thread at a time."""
        self._scanned_s = time.monotonic()
        mtime_ns = self.folder.stat().st_mtime_ns if self.folder.is_dir() else -1
        if mtime_ns == self._seen_mtime_ns and not written:
            return
        self._seen_mtime_ns = mtime_ns
        open_already = {shard.path for shard in self._lookup.shards}
        fresh = []
        found: Counter[str] = Counter()
        for path in shards_in(self.folder):
            if path in open_already:
                continue
            try:
                fresh.append(self._open(path, written_here=path in written))
            except ForeignFileError:
                found["foreign"] += 1
            except OSError:  # pruned meanwhile, or it may not be read: its pictures are made
                continue
            except DamagedShard:
                found["damaged"] += 1
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        with self._lookup_lock:
            self._lookup = self._lookup.with_shards(fresh)
        self._count(damaged=found["damaged"])
        if found["foreign"]:
            self._warn_foreign(found["foreign"])
        if self._max_bytes is not None:
            self._others_bytes = folder_bytes(self._root) - self._writer.written_bytes

    def _open(self, path: Path, *, written_here: bool) -> Shard:
        raw = self.recipe.quality is None
        return open_shard(path, raw=raw, shared=self._shared, written_here=written_here)

    def _warn_foreign(self, number: int) -> None:
        if self._warned_foreign:
            return
        self._warned_foreign = True
        _log.warning(
            "cache %s: %d shards belong to other users or may be written by them and are left alone; set `shared: true` "
            "below `cache` if you trust them, or delete them",
            self.folder,
            number,
        )

    def _disable(self, error: OSError) -> None:
        with self._count_lock:
            if self._disabled:
                return
            self._disabled = True
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else error.strerror or str(error)
        _log.warning(
            "cache %s: nothing more is added in this run (%s); batches stay the same. "
            "Make room, for instance with `lightwell cache prune`, or set cache.max_bytes",
            self._root,
            reason,
        )

    def dump_counts(self) -> dict[str, int]:
        """Return hits, misses, kept and damaged so far."""
        return dict(asdict(self.counts))

    def close(self) -> None:
        """Finish what is being written."""
        self.publish()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def choose_shard_bytes(max_bytes: int | None, buffer_bytes: int = MAX_BUFFER_BYTES) -> int:
    """Choose how large shards are: small where little may be kept, so that pruning has something to choose from.

    Args:
        max_bytes: that may be kept.
        buffer_bytes: that those on their way to the disk may take in memory.
    """
    most = max(1, min(SHARD_BYTES, buffer_bytes // NUM_BUFFERS))
    return most if max_bytes is None else min(most, max(LEAST_SHARD_BYTES, max_bytes // SHARDS_IN_LIMIT))
