"""Hard memory limit, in bytes, for the data that a feed has in flight.

The budget is split into separate parts, acquired in a fixed order, so that no deadlock is possible:

* rows: output rows of open batches. The consumer's batch and the next one always fit; further batches start only
  while they fit.
* files: encoded bytes, from before a chunk is read until it is processed. Admitted in chunk order, in which chunks are
  also processed and released.
* pixels: decoded images and intermediate results, from before decoding until they are in their batch. A thread that
  holds this part waits for nothing.
* cache: images to be written to a cache, if the plan has one. The cache enforces this limit itself by the size of its
  buffers; an image larger than a buffer is written without copying.

A file or image larger than its whole part is admitted alone, when the part is empty, with one warning that names it.
Not counted: memory of the libraries, temporary memory of transforms, replacements for bad samples (one at a time per
thread), and batches that the consumer keeps after it has requested the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rich.filesize import decimal as format_bytes

from ..cache.writer import MAX_BUFFER_BYTES
from ..errors import PlanError

BudgetPart = Literal["rows", "files", "pixels"]
HELD_BATCHES = 2
"""Batches that must fit: the consumer's and the next one."""
MAX_ROWS_SHARE = 0.75
"""Largest share of the budget for batch rows; the rest is needed to produce them."""
PIXELS_SHARE = 0.75
MAX_CACHE_SHARE = 0.125
"""Largest share of the budget for images to be written to a cache."""

logger = logging.getLogger("lightwell")


@dataclass(frozen=True, slots=True)
class BudgetSplit:
    """Parts of a memory budget, in bytes."""

    rows: int
    files: int
    pixels: int
    cache: int = 0

    @property
    def total(self) -> int:
        """The whole budget."""
        return self.rows + self.files + self.pixels + self.cache


def split_budget(memory_bytes: int, *, batch_bytes: int, prefetch: int, cached: bool = False) -> BudgetSplit:
    """Split a budget: rows of prefetched batches, at most half of it, and the rest for files and pixels.

    Args:
        memory_bytes: the budget.
        batch_bytes: size of the largest batch.
        prefetch: number of finished batches to hold.
        cached: whether there is a cache, whose buffers are subtracted first.

    Raises:
        PlanError: the two batches that must fit do not.
    """
    cache = min(MAX_BUFFER_BYTES, int(memory_bytes * MAX_CACHE_SHARE)) if cached else 0
    usable = memory_bytes - cache
    minimum = HELD_BATCHES * batch_bytes
    rows = max(minimum, min((prefetch + HELD_BATCHES) * batch_bytes, usable // 2))
    if rows > MAX_ROWS_SHARE * usable:
        needed = int(minimum / MAX_ROWS_SHARE / (1 - MAX_CACHE_SHARE if cached else 1)) + 1
        raise PlanError(
            f"memory: expected at least {format_bytes(needed)} for batches of "
            f"{format_bytes(batch_bytes)}, got {format_bytes(memory_bytes)}; give more with --memory, or make batch.size smaller"
        )
    rest = usable - rows
    pixels = int(rest * PIXELS_SHARE)
    return BudgetSplit(rows, rest - pixels, pixels, cache)


class MemoryBudget:
    """Counts bytes in flight and blocks threads until theirs fit. Thread-safe."""

    def __init__(self, split: BudgetSplit) -> None:
        self.split = split
        self.peak_bytes = 0
        """Largest number of bytes in flight so far."""
        self._used: dict[BudgetPart, int] = {"rows": 0, "files": 0, "pixels": 0}
        self._next_file = 0
        self._closed = False
        self._warned: set[BudgetPart] = set()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Bytes in flight."""
        return sum(self._used.values())

    def try_reserve_batch(self, num_bytes: int, *, only_one: bool) -> bool:
        """Reserve the rows of a batch without waiting; return whether they fit. The only open batch always fits."""
        with self._changed:
            if not only_one and self._used["rows"] + num_bytes > self.split.rows:
                return False
            self._acquire("rows", num_bytes)
            return True

    def reserve_batch(self, num_bytes: int) -> None:
        """Wait until the rows of a batch fit, and reserve them."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits("rows", num_bytes))
            self._acquire("rows", num_bytes)

    def release_batch(self, num_bytes: int) -> None:
        """Release the rows of a batch that the consumer is done with."""
        self._release("rows", num_bytes)

    def reserve_file(self, ticket: int, num_bytes: int) -> None:
        """Wait until a chunk's encoded bytes fit and reserve them, in order of the tickets, which count from 0."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (ticket == self._next_file and self._fits("files", num_bytes))
            )
            self._next_file = max(self._next_file, ticket + 1)
            self._acquire("files", num_bytes, "a file")
            self._changed.notify_all()

    def add_file(self, num_bytes: int) -> None:
        """Count encoded bytes without waiting."""
        with self._changed:
            self._acquire("files", num_bytes, "a file")

    def release_file(self, num_bytes: int) -> None:
        """Release a chunk's encoded bytes."""
        self._release("files", num_bytes)

    @contextmanager
    def pixels(self, num_bytes: int, what: str) -> Iterator[None]:
        """Wait until decoded images fit, and reserve their bytes for the duration of the context."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits("pixels", num_bytes))
            self._acquire("pixels", num_bytes, what)
        try:
            yield
        finally:
            self._release("pixels", num_bytes)

    def close(self) -> None:
        """Unblock all waiting threads, as the feed ends and only work in progress is finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, share: BudgetPart, num_bytes: int) -> bool:
        used = self._used[share]
        return used == 0 or used + num_bytes <= int(getattr(self.split, share))

    def _acquire(self, share: BudgetPart, num_bytes: int, what: str = "") -> None:
        self._used[share] += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        limit = int(getattr(self.split, share))
        if num_bytes > limit and share not in self._warned and not self._closed:
            self._warned.add(share)
            logger.warning(
                "memory: %s takes %s, more than the %s for %s in a budget of %s; processed alone; raise --memory",
                what or "a batch",
                format_bytes(num_bytes),
                format_bytes(limit),
                share,
                format_bytes(self.split.total),
            )

    def _release(self, share: BudgetPart, num_bytes: int) -> None:
        with self._changed:
            self._used[share] -= num_bytes
            assert self._used[share] >= 0, share
            self._changed.notify_all()
