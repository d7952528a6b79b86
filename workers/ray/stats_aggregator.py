"""Aggregates the statistics of remote workers and of this process for a stream from Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar

from ...pipeline.monitor.stats import FeedStats, ThreadStats
from ...pipeline.monitor.step_timer import FeedMonitor
from ...pipeline.runtime.feed_state import BaseFeed, FeedState
from ...pipeline.runtime.open_view import OpenView

T = TypeVar("T")


class StatsAggregator:
    """Latest report of each worker, and the timer of this process; a context manager, which starts and stops it."""

    def __init__(self) -> None:
        self._monitor = FeedMonitor()
        self._workers: dict[str, Mapping[str, Any]] = {}
        self._moved_bytes = 0

    def __enter__(self) -> Self:
        self._monitor.start()
        self._timer = self._monitor.timer("consume")
        return self

    def __exit__(self, *exc: object) -> None:
        self._monitor.stop()

    def enter(self, step: str) -> None:
        """Switch this process's timer to a step: ``input`` is waiting for Ray, ``batch`` receiving a batch."""
        self._timer.enter(step)

    def update(self, report: Mapping[str, Any], num_bytes: int) -> None:
        """Record a worker's report and the size of the batch that it came with."""
        self._moved_bytes += num_bytes
        if report:
            self._workers[report["worker"]] = report

    def count_batch(self, num_images: int) -> None:
        """Record that a batch is yielded to the consumer."""
        self._monitor.count_batch(num_images)
        self._timer.enter("consumer")

    def read(self, *, replaced: int) -> FeedStats:
        """Return the aggregate; workers that died count with their last report."""
        workers = list(self._workers.values())

        def total(name: str) -> int:
            return sum(worker[name] for worker in workers)

        local = self._monitor.read(
            num_threads=total("num_threads"),
            replaced=replaced,
            memory_bytes=total("memory_bytes"),
            peak_bytes=total("peak_bytes"),
        )
        threads = tuple(ThreadStats(**thread) for worker in workers for thread in worker["threads"])
        return replace(
            local,
            cpu_s=local.cpu_s + sum(worker["cpu_s"] for worker in workers),
            cache_hits=total("cache_hits"),
            threads=local.threads + threads,
            moved_bytes=self._moved_bytes,
        )


class RemoteFeed(BaseFeed[T]):
    """Feed whose batches are made by other processes, with aggregated statistics."""

    def __init__(self, opened: OpenView, feed_state: FeedState) -> None:
        super().__init__(opened, feed_state)
        self._stats = StatsAggregator()

    def stats(self) -> FeedStats:
        """Return the statistics of the workers and of this process."""
        return self._stats.read(replaced=self._feed_state.counts["replaced"])
