"""The cache as an engine uses it: find pictures, keep new ones, publish what was written."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import OutputError
from .packing import Packed
from .recipe import Recipe
from .shard import SUFFIX, DamagedShard, Shard, open_shard
from .table import NOWHERE, Table
from .writing import ROW_BYTES, SHARD_BYTES, ShardWriter, clear_leftovers

_log = logging.getLogger(__name__)

LOOK_AGAIN_S = 3.0
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

    Args:
        folder: of the cache, the plan's ``cache.dir``.
        recipe: how its pictures are made.
        max_bytes: of all recipes together.
        shard_bytes: of pictures in a shard; by default what fits the limit.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, *, max_bytes: int | None = None, shard_bytes: int | None = None
    ) -> None:
        self._root = folder
        self.recipe = recipe
        self.fingerprint = recipe.fingerprint()
        self.folder = folder / self.fingerprint
        self._max_bytes = max_bytes
        self._off = False
        self._lock = threading.Lock()
        self.counts = CacheCounts()
        self._make_folder()
        self._writer = ShardWriter(self.folder, shard_bytes or fitting_shard_bytes(max_bytes))
        self._table = Table()
        self._touched: set[Path] = set()
        self._seen_mtime_ns = -1
        self._looked_s = 0.0
        self._others_bytes = 0
        self._look()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "recipe.json").exists():
                self.recipe.save(self.folder)
            clear_leftovers(self.folder)
        except OutputError as error:  # of the recipe; the folder is there
            self._turn_off(error.__cause__ if isinstance(error.__cause__, OSError) else OSError(str(error)))
        except OSError as error:
            if not self.folder.is_dir():
                raise OutputError(
                    f"cache.dir: expected a folder that can be written, got {str(self._root)!r} "
                    f"({error.strerror or error}); choose another, or leave cache out"
                ) from error
            self._turn_off(error)

    def holds(self, keys: np.ndarray) -> bool:
        """Say whether all of some keys, shape (n, 2), are there; looks at none of them."""
        return all(self._table.holds(keys))

    def find(self, keys: np.ndarray) -> list[Packed | None]:
        """Find pictures by their keys, shape (n, 2); None for those that are not there or are damaged."""
        table = self._table
        found: list[Packed | None] = []
        for shard_number, number in table.search(keys):
            shard = None if shard_number == NOWHERE else table.shards[shard_number]
            found.append(None if shard is None else self._read(shard, number))
        hits = sum(packed is not None for packed in found)
        with self._lock:
            self.counts.hits += hits
            self.counts.misses += len(found) - hits
        if hits < len(found) and time.monotonic() - self._looked_s > LOOK_AGAIN_S:
            self._look()
        return found

    def _read(self, shard: Shard, number: int) -> Packed | None:
        try:
            packed = shard.read(number)
        except DamagedShard:
            self._throw_away(shard)
            return None
        if shard.path not in self._touched:
            self._touched.add(shard.path)
            with suppress(OSError):  # only tells pruning that it is in use
                os.utime(shard.path)
        return packed

    def _throw_away(self, shard: Shard) -> None:
        with self._lock:
            if shard not in self._table.shards:
                return
            self._table = self._table.without(shard)
            self.counts.damaged += 1
        with suppress(OSError):  # a folder that cannot be written: every run finds it anew
            shard.path.unlink(missing_ok=True)

    def keep(self, pictures: Sequence[tuple[np.ndarray, Packed]]) -> None:
        """Add pictures with their keys, unless they are there or there is no room; copies them."""
        if self._off or not pictures:
            return
        there = self._table.holds(np.stack([key for key, _ in pictures]))
        new = [
            (key.tobytes(), picture) for (key, picture), old in zip(pictures, there, strict=True) if not old
        ]
        error = self._writer.failed()
        if error is not None:
            self._turn_off(error)
            return
        with self._lock:
            for key, picture in new:
                if not self._has_room(picture):
                    return
                self.counts.kept += self._writer.add(key, picture)

    def _has_room(self, picture: Packed) -> bool:
        if self._max_bytes is None:
            return True
        used = self._others_bytes + self._writer.taken_bytes + OVERHEAD_BYTES
        return used + len(picture.data) + ROW_BYTES <= self._max_bytes

    def publish(self) -> None:
        """Finish the shards of the pictures kept so far and look for those of other processes. Waits for the disk."""
        try:
            written = self._writer.flush()
        except OSError as error:
            self._turn_off(error)
            written = []
        self._look(written)

    def _look(self, written: Sequence[Path] = ()) -> None:
        """Open shards that are new in the folder; ``written`` are our own."""
        with self._lock:
            self._looked_s = time.monotonic()
            mtime_ns = self.folder.stat().st_mtime_ns if self.folder.is_dir() else -1
            if mtime_ns == self._seen_mtime_ns and not written:
                return
            self._seen_mtime_ns = mtime_ns
            open_already = {shard.path for shard in self._table.shards}
            fresh = []
            for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                if path in open_already:
                    continue
                try:
                    fresh.append(open_shard(path, written_here=path in written))
                except OSError:  # pruned meanwhile, or it may not be read: its pictures are made
                    continue
                except DamagedShard:
                    self.counts.damaged += 1
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
            self._table = self._table.with_shards(fresh)
            if self._max_bytes is not None:
                self._others_bytes = folder_bytes(self._root) - self._writer.written_bytes

    def _turn_off(self, error: OSError) -> None:
        with self._lock:
            if self._off:
                return
            self._off = True
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


def fitting_shard_bytes(max_bytes: int | None) -> int:
    """Choose how large shards are: small where little may be kept, so that pruning has something to choose from."""
    if max_bytes is None:
        return SHARD_BYTES
    return min(SHARD_BYTES, max(LEAST_SHARD_BYTES, max_bytes // SHARDS_IN_LIMIT))


def folder_bytes(root: Path) -> int:
    """Add up the bytes of all shards of a cache."""
    total = 0
    for path in root.glob(f"*/*{SUFFIX}"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total
