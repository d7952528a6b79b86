"""Adds up what workers tell of themselves with what this process waits for: the statistics of a stream from Ray."""

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
    """The last that each worker told, and this process's own clock; a context manager, which starts and stops it."""

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
        """Turn the clock of this process to a step: ``input`` is waiting for Ray, ``batch`` taking over a batch."""
        self._timer.enter(step)

    def update(self, report: Mapping[str, Any], num_bytes: int) -> None:
        """Note what a worker told with a batch of so many bytes."""
        self._moved_bytes += num_bytes
        if report:
            self._workers[report["worker"]] = report

    def count_batch(self, num_images: int) -> None:
        """Note that a batch goes to the consumer."""
        self._monitor.count_batch(num_images)
        self._timer.enter("consumer")

    def read(self, *, replaced: int) -> FeedStats:
        """Add up; workers that died count with the last they told."""
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
    """A feed whose batches are made elsewhere, with the statistics of all who have a part in it."""

    def __init__(self, opened: OpenView, feed_state: FeedState) -> None:
        super().__init__(opened, feed_state)
        self._stats = StatsAggregator()

    def stats(self) -> FeedStats:
        """Say where the time of those who make the batches and of this process went."""
        return self._stats.read(replaced=self._feed_state.counts["replaced"])
