"""A hard budget for what a feed has in flight, in bytes, whatever the sizes of the pictures.

The budget is cut into shares, so that nobody who holds a part of one waits for another share that the next in
line holds, and nothing can lock up:

* rows: the finished pictures of open batches. The consumer's batch and the one that it waits for always fit; more
  are begun only while they fit.
* files: encoded bytes, from before a chunk is read until it is made. Admitted in the order of the chunks, which is the
  order in which they are made and let go.
* pixels: decoded pictures and what becomes of them, from before decoding until they are in their batch. A thread that
  holds some waits for nothing.
* cache: pictures on their way into a cache, where the plan has one. The cache keeps to it by itself: its buffers are
  as large as the share says, and a picture that is larger than one is written from where it lies.

A file or picture that is larger than its whole share goes alone, when the share is empty, with one warning that names
it. What the budget does not count: the libraries' own memory, what a transform makes for itself, a replacement for a
bad sample (one at a time in each thread), and batches that the consumer keeps after it has asked for the next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ..cache.writer import MAX_BUFFER_BYTES
from ..errors import PlanError
from ..monitor.stats import megabytes

BudgetPart = Literal["rows", "files", "pixels"]
HELD_BATCHES = 2
"""Batches that must fit: the consumer's, and the one that it waits for."""
MAX_ROWS_SHARE = 0.75
"""BudgetPart of the budget that finished rows may take: the rest has to make them."""
PIXELS_SHARE = 0.75
MAX_CACHE_SHARE = 0.125
"""BudgetPart of the budget for pictures on their way into a cache."""

logger = logging.getLogger("lightwell")


@dataclass(frozen=True, slots=True)
class BudgetSplit:
    """How a budget is cut, in bytes."""

    rows: int
    files: int
    pixels: int
    cache: int = 0

    @property
    def total(self) -> int:
        """The whole budget."""
        return self.rows + self.files + self.pixels + self.cache


def split_budget(memory_bytes: int, *, batch_bytes: int, prefetch: int, cached: bool = False) -> BudgetSplit:
    """Cut a budget: rows for as many batches as are prefetched, at most half; the rest for making them.

    Args:
        memory_bytes: the budget.
        batch_bytes: of the largest batch.
        prefetch: batches that may lie finished.
        cached: whether there is a cache, whose buffers are cut off first.

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
            f"memory: expected at least {megabytes(needed)} for batches of "
            f"{megabytes(batch_bytes)}, got {megabytes(memory_bytes)}; give more with --memory, or make batch.size smaller"
        )
    rest = usable - rows
    pixels = int(rest * PIXELS_SHARE)
    return BudgetSplit(rows, rest - pixels, pixels, cache)


class MemoryBudget:
    """Counts what is in flight and lets threads wait for room. Any thread may use it."""

    def __init__(self, split: BudgetSplit) -> None:
        self.split = split
        self.peak_bytes = 0
        """The most that was ever in flight."""
        self._used: dict[BudgetPart, int] = {"rows": 0, "files": 0, "pixels": 0}
        self._next_file = 0
        self._closed = False
        self._warned: set[BudgetPart] = set()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """What is in flight."""
        return sum(self._used.values())

    def try_reserve_batch(self, num_bytes: int, *, only_one: bool) -> bool:
        """Reserve the rows of a batch; returns whether there was room. The only one in the making always has it."""
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
        """Let go the rows of a batch that the consumer is done with."""
        self._release("rows", num_bytes)

    def reserve_file(self, ticket: int, num_bytes: int) -> None:
        """Wait until a chunk's encoded bytes fit; in the order of the tickets, which count from 0."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (ticket == self._next_file and self._fits("files", num_bytes))
            )
            self._next_file = max(self._next_file, ticket + 1)
            self._acquire("files", num_bytes, "a file")
            self._changed.notify_all()

    def add_file(self, num_bytes: int) -> None:
        """Count encoded bytes that could not wait for room."""
        with self._changed:
            self._acquire("files", num_bytes, "a file")

    def release_file(self, num_bytes: int) -> None:
        """Let go a chunk's encoded bytes."""
        self._release("files", num_bytes)

    @contextmanager
    def pixels(self, num_bytes: int, what: str) -> Iterator[None]:
        """Wait until decoded pictures fit, and hold their room."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits("pixels", num_bytes))
            self._acquire("pixels", num_bytes, what)
        try:
            yield
        finally:
            self._release("pixels", num_bytes)

    def close(self) -> None:
        """Let everyone go on who waits: the feed ends, and only what is under way is finished."""
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
                "memory: %s takes %s and has %s (the share of %s in %s); it goes alone; give more with --memory",
                what or "a batch",
                megabytes(num_bytes),
                megabytes(limit),
                share,
                megabytes(self.split.total),
            )

    def _release(self, share: BudgetPart, num_bytes: int) -> None:
        with self._changed:
            self._used[share] -= num_bytes
            assert self._used[share] >= 0, share
            self._changed.notify_all()
