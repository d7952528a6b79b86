"""Pixel cache used by an engine: look up images, add new ones, publish written shards."""

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
"""Interval at which an epoch with missing images scans for shards finished by other processes."""
SHARDS_IN_LIMIT = 16
LEAST_SHARD_BYTES = 1 << 16
OVERHEAD_BYTES = 4096
"""Upper bound of a shard's bytes besides its images and their rows."""


@dataclass(slots=True)
class CacheCounts:
    """Cache statistics of one feed, in images."""

    hits: int = 0
    misses: int = 0
    added: int = 0
    """Images added to the cache."""
    damaged: int = 0
    """Damaged shards that were deleted."""


class PixelCache:
    """Cache of the images of one recipe. ``get`` and ``put`` are thread-safe; one thread publishes; call ``close``.

    Nothing is evicted: once ``max_bytes`` is reached, nothing more is added. A shard with a damaged image is deleted; its
    intact images are added again from memory and the others are produced again. A full disk, or any other write error,
    disables adding for this run with one warning.

    Lookups do not wait for a slow disk: the locks of the lookup and of the counts are held briefly, ``put`` has its own
    lock, under which threads wait for buffers, and lookups do not wait for the lock of the folder scan.

    Args:
        folder: of the cache, the plan's ``cache.dir``.
        recipe: of its images.
        max_bytes: limit for all recipes together.
        shard_bytes: image bytes per shard; by default derived from the limits.
        buffer_bytes: memory for images not yet written.
        shared: accept a folder and shards that other users own or may write.

    Raises:
        OutputError: the folder cannot be created.
        PlanError: other users own the folder or may write to it, and it is not shared.
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
        """Return whether all keys, shape (n, 2), are present, without reading the images."""
        return all(self._lookup.contains(keys))

    def contains_each(self, keys: np.ndarray) -> list[bool]:
        """Return which keys, shape (n, 2), are present, without reading the images."""
        return self._lookup.contains(keys)

    def get(self, keys: np.ndarray) -> list[CachedImage | None]:
        """Return the images of some keys, shape (n, 2); None for those missing or damaged."""
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
            if self._drop(
                shard
            ):  # other threads may have read its intact images, so nothing else would add them
                self.put(list(shard.intact()))
            return None
        if shard.path not in self._touched:
            self._touched.add(shard.path)
            with suppress(OSError):  # marks it as used, for pruning
                os.utime(shard.path, follow_symlinks=False)
        return packed

    def discard(self, picture: CachedImage) -> None:
        """Delete the shard of an image that cannot be decoded; its other images are not trusted either."""
        if picture.shard is not None:
            self._drop(picture.shard)

    def _drop(self, shard: Shard) -> bool:
        """Delete a shard; return whether this call did."""
        with self._lookup_lock:
            if shard not in self._lookup.shards:
                return False
            self._lookup = self._lookup.without(shard)
        self._count(damaged=1)
        try:
            shard.path.unlink(missing_ok=True)
        except OSError:  # read-only folder: each run detects the damage again
            return False
        with self._put_lock:
            self._others_bytes -= shard.num_bytes
        return True

    def put(self, pictures: Sequence[tuple[np.ndarray, CachedImage]]) -> None:
        """Add images with their keys, unless present or over the limit. Copies them, and blocks while the disk is slower."""
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
                    self._count(added=self._writer.add(key, picture))
                elif self._writer.reserve(key, picture):
                    large.append((key, picture))
        for key, picture in large:
            self._writer.write_single(key, picture)
            self._count(added=1)

    def _has_room(self, picture: CachedImage) -> bool:
        if self._max_bytes is None:
            return True
        used = self._others_bytes + self._writer.taken_bytes + OVERHEAD_BYTES
        return used + len(picture.data) + ROW_BYTES <= self._max_bytes

    def publish(self) -> None:
        """Finish the current shards, waiting for the disk, and scan for shards of other processes."""
        try:
            written = self._writer.flush()
        except OSError as error:
            self._disable(error)
            written = []
        with self._scan_lock:
            self._scan(written)

    def _scan(self, written: Sequence[Path] = ()) -> None:
        """Open new shards in the folder, of which this process wrote ``written``. One thread at a time."""
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
            except OSError:  # pruned meanwhile or unreadable: its images are produced again
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
        return open_shard(path, form=self.recipe.form, shared=self._shared, written_here=written_here)

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
        """Return hits, misses, added and damaged so far."""
        return dict(asdict(self.counts))

    def close(self) -> None:
        """Finish pending writes."""
        self.publish()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def choose_shard_bytes(max_bytes: int | None, buffer_bytes: int = MAX_BUFFER_BYTES) -> int:
    """Return the shard size: small for a small cache, so that pruning is fine-grained.

    Args:
        max_bytes: limit of the cache.
        buffer_bytes: memory for images not yet written.
    """
    most = max(1, min(SHARD_BYTES, buffer_bytes // NUM_BUFFERS))
    return most if max_bytes is None else min(most, max(LEAST_SHARD_BYTES, max_bytes // SHARDS_IN_LIMIT))
