"""Local engine: builds batches with threads of this process. The reference for all other engines.

    rows of the index -> bytes -> pool: sample parameters, decode, transform, normalise into the batch's rows -> batch

A batch is split into chunks. Reader threads fetch a chunk's files; one thread of the pool then processes its samples
from start to end, so that decoded pixels are still in the CPU cache when they are augmented. Several batches are in
progress at once and are yielded in order. Random values depend on none of this (law 2).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from ..batch.batch import Batch
from ..compiler.routing import Backend
from ..config.argument_checks import check_choice, check_count, check_type
from ..executor.cached import CacheReader
from ..machine import default_memory_bytes, num_cpus
from ..memory.budget import MemoryBudget, split_budget
from ..monitor.stats import FeedStats
from ..monitor.step_timer import FeedMonitor
from ..plan.plan import Plan
from ..plan.view import View
from .batch_builder import BatchBuilder, check_backend
from .feed_state import BaseFeed, FeedState
from .open_view import OpenView
from .worker_pool import CHUNK_IMAGES, OpenBatch

DEFAULT_PREFETCH = 3
MAX_THREADS = 4096


@dataclass(frozen=True)
class LocalEngine:
    """Runs plans in this process."""

    num_threads: int = 0
    """Threads that process samples; as many more read files. 0 means one per core."""
    prefetch: int = DEFAULT_PREFETCH
    """Batches to prepare ahead of the consumer."""
    memory_bytes: int = 0
    """Memory limit for files, pixels and finished batches in flight; see ``memory``. 0 means 25 % of the memory available
    to this process."""
    backend: Backend | None = None
    """Library that processes pixels; None means DALI for plans on a GPU and OpenCV for plans on the CPU."""

    def __post_init__(self) -> None:
        check_count("num_threads", self.num_threads, maximum=MAX_THREADS)
        check_count("prefetch", self.prefetch)
        check_count("memory_bytes", self.memory_bytes, maximum=2**62)
        if self.backend is not None:
            check_choice("backend", self.backend, get_args(Backend))

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> LocalFeed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: plan or view is invalid, or the position belongs to another.
            SourceError: the index cannot be used or has no such split.
        """
        check_type("plan", plan, Plan)
        check_type("view", view, View)
        threads = self.num_threads or num_cpus()
        backend: Backend = self.backend or ("dali" if plan.device == "gpu" else "opencv")
        return LocalFeed(
            plan,
            view,
            position,
            num_threads=threads,
            prefetch=self.prefetch,
            backend=backend,
            memory_bytes=self.memory_bytes or default_memory_bytes(),
        )


class LocalFeed(BaseFeed[Batch]):
    """Batches of one view, in order, built in this process.

    Iterating raises:
        RunError: neither a sample nor any of its replacements could be used, or more are bad than the plan tolerates.
        SampleError: a sample cannot be used and the plan has ``on_error: raise``.
        SourceUnavailableError: a remote source gives no answer.
        SampleTimeoutError: a file exceeds its time limit by far.
        PlanError: the finished images of a batch differ in size.
    """

    def __init__(
        self,
        plan: Plan,
        view: View,
        position: Mapping[str, Any] | None = None,
        *,
        num_threads: int,
        prefetch: int,
        memory_bytes: int,
        backend: Backend = "opencv",
    ) -> None:
        opened = OpenView.of(plan, view)
        check_backend(opened, backend)
        super().__init__(opened, FeedState(opened, position))
        self._num_threads = num_threads
        chunks = -(-plan.batch.size // CHUNK_IMAGES)
        self._prefetch = max(prefetch, -(-2 * num_threads // chunks))  # small batches keep many threads busy
        self._backend: Backend = backend
        self._stop = threading.Event()
        self._split = split_budget(
            memory_bytes,
            batch_bytes=opened.largest_batch_bytes,
            prefetch=self._prefetch,
            cached=plan.cache is not None,
        )
        self._cached = CacheReader.open(opened.program, opened.index, self._split.cache)
        self._monitor = FeedMonitor()
        self._budget = MemoryBudget(self._split)

    @property
    def cache_counts(self) -> dict[str, int]:
        """Cache hits, misses, images stored and damaged shards so far; empty without a cache."""
        return {} if self._cached is None else self._cached.cache.dump_counts()

    def stats(self) -> FeedStats:
        """Return time per step, throughput and memory use so far."""
        return self._monitor.read(
            num_threads=self._num_threads,
            replaced=self._feed_state.counts["replaced"],
            memory_bytes=self._budget.split.total,
            peak_bytes=self._budget.peak_bytes,
        )

    def close(self) -> None:
        """Stop prefetching; a feed that is read to its end does so by itself."""
        super().close()
        self._stop.set()

    def _batches(self) -> Iterator[Batch]:
        self._monitor = FeedMonitor()
        self._monitor.start()
        timer = self._monitor.timer("consume")
        try:
            with self._open_builder() as builder:
                self._budget = builder.budget
                for open_batch in self._prefetched(builder):
                    timer.enter("input")
                    open_batch.wait()
                    timer.enter("batch")
                    result = builder.finish(open_batch)
                    num_bytes = open_batch.num_bytes
                    del open_batch  # its buffer is free once the consumer has let it go
                    self._feed_state.record_batch(result)
                    batch = result.batch
                    del result
                    if batch is not None:
                        self._monitor.count_batch(batch.num_images)
                        timer.enter("consumer")
                        yield batch
                        timer.enter("batch")
                        del batch
                    builder.release(num_bytes)
        finally:
            self._monitor.stop()

    def _open_builder(self) -> BatchBuilder:
        return BatchBuilder(
            self._opened,
            self._split,
            num_threads=self._num_threads,
            backend=self._backend,
            cached=self._cached,
            monitor=self._monitor,
        )

    def _prefetched(self, builder: BatchBuilder) -> Iterator[OpenBatch]:
        """Keep several batches in progress and yield them in order."""
        in_progress: deque[OpenBatch] = deque()
        next_number, end = self._feed_state.next, self._opened.schedule.num_batches
        while True:
            while next_number < end and len(in_progress) <= self._prefetch:
                batch = builder.start(next_number, only_one=not in_progress)
                if batch is None:
                    break
                in_progress.append(batch)
                self._monitor.batches.change(1)
                next_number += 1
            if not in_progress or self._stop.is_set():
                return
            yield in_progress.popleft()
            self._monitor.batches.change(-1)
