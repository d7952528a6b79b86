"""Prometheus metrics of feeds, through ``ray.util.metrics``; disabled unless Ray is running.

    ray_lightwell_samples_total, ray_lightwell_batches_total       yielded to the consumer
    ray_lightwell_replaced_total, ray_lightwell_skipped_total      unusable images: replaced by another, or skipped
    ray_lightwell_cache_hits_total                                 samples
    ray_lightwell_bytes_total{step}                                bytes produced by a step
    ray_lightwell_moved_bytes_total                                bytes of batches received from other processes
    ray_lightwell_step_seconds_total{stage, step}                  thread time; the steps input and room are waiting
    ray_lightwell_queue_depth{queue}                               items queued between two stages
    ray_lightwell_stall_share                                      share of the consumer's time spent waiting, since the last report

All have the tags ``job``, ``feed`` and ``worker``; Ray adds node and process.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self

from .observed_engine import ObservedEngine

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Stream
    from ..pipeline.monitor.stats import FeedStats

INTERVAL_S = 5.0
"""Seconds between two reports; Ray exports every ten seconds."""
TAGS = ("job", "feed", "worker")


@dataclass(frozen=True, slots=True)
class Instrument:
    """Definition of one metric."""

    kind: str
    """``counter`` or ``gauge``."""
    description: str
    tags: tuple[str, ...] = ()
    """Tags in addition to ``TAGS``."""


INSTRUMENTS: Mapping[str, Instrument] = {
    "lightwell_samples": Instrument("counter", "Samples yielded to the consumer, without padding."),
    "lightwell_batches": Instrument("counter", "Batches yielded to the consumer."),
    "lightwell_replaced": Instrument("counter", "Unusable samples that were replaced by another."),
    "lightwell_skipped": Instrument("counter", "Unusable samples that were skipped."),
    "lightwell_cache_hits": Instrument("counter", "Samples whose pixels came from the cache."),
    "lightwell_bytes": Instrument("counter", "Bytes produced by a step.", ("step",)),
    "lightwell_moved_bytes": Instrument("counter", "Bytes of batches received from other processes."),
    "lightwell_step_seconds": Instrument(
        "counter", "Thread seconds by step; input and room are waiting.", ("stage", "step")
    ),
    "lightwell_queue_depth": Instrument("gauge", "Items queued between two stages.", ("queue",)),
    "lightwell_stall_share": Instrument("gauge", "Share of the consumer's time spent waiting, 0 to 1."),
}


class FeedMeter:
    """Reports the metrics of one feed of this process; thread-safe.

    Args:
        job: name of the job, such as ``Classify``.
        feed: name of the feed, such as ``train``.
        worker: name of the process, such as ``rank 0``.
        interval_s: seconds between two reports of ``report_if_due``.
    """

    def __init__(self, job: str, feed: str, worker: str = "", *, interval_s: float = INTERVAL_S) -> None:
        self._tags = {"job": job, "feed": feed, "worker": worker}
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._reported: dict[tuple[str, tuple[str, ...]], float] = {}
        self._next = time.monotonic()

    def report_if_due(self, feed: Stream[Any]) -> None:
        """Report a feed if the interval has passed; cheap enough to call after every batch."""
        if time.monotonic() >= self._next and _ray_runs():
            self.report(feed.stats(), feed.counts)

    def report(self, stats: FeedStats, counts: Mapping[str, int]) -> None:
        """Report now; a no-op unless Ray is running.

        Args:
            stats: statistics of the feed so far.
            counts: its image counts, of which ``replaced`` and ``skipped`` are reported.
        """
        if not _ray_runs():
            return
        with self._lock:
            self._next = time.monotonic() + self._interval_s
            waited = self._increase("waited", (), stats.seconds("consume", "input"))
            lifetime = self._increase(
                "lived", (), sum(one.wall_s for one in stats.threads if one.stage == "consume")
            )
            for name, tags, value in _totals(stats, counts):
                if (growth := self._increase(name, tags, value)) > 0:
                    _metric(name).inc(growth, tags=self._tags_for(name, tags))
            for queue in stats.queues:
                _metric("lightwell_queue_depth").set(
                    float(queue.depth), tags=self._tags_for("lightwell_queue_depth", (queue.name,))
                )
            if lifetime > 0:
                share = min(1.0, waited / lifetime)
                _metric("lightwell_stall_share").set(share, tags=self._tags_for("lightwell_stall_share", ()))

    def _increase(self, name: str, tags: tuple[str, ...], value: float) -> float:
        """Return the increase of a total since the last report; a smaller value means that the feed was reset."""
        before = self._reported.get((name, tags), 0.0)
        self._reported[name, tags] = value
        return value - before if value >= before else value

    def _tags_for(self, name: str, tags: tuple[str, ...]) -> dict[str, str]:
        return {**self._tags, **dict(zip(INSTRUMENTS[name].tags, tags, strict=True))}


class JobMeter:
    """Reports the metrics of all feeds of a job; a context manager, which reports a last time on exit.

    Args:
        job: name of the job, such as ``Classify``.
        worker: name of the process, such as ``rank 0``.
    """

    def __init__(self, job: str, worker: str = "") -> None:
        self._job = job
        self._worker = worker
        self._feeds: list[tuple[FeedMeter, Stream[Any]]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report_periodically, name="lightwell-meter", daemon=True)

    def instrument(self, engine: ObservedEngine) -> ObservedEngine:
        """Wrap an engine so that all its feeds are reported, named by their splits."""
        return ObservedEngine(engine, lambda feed, name, _: self.add_feed(feed, name))

    def add_feed(self, feed: Stream[Any], name: str) -> None:
        """Add a feed to report."""
        self._feeds.append((FeedMeter(self._job, name, self._worker), feed))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        for meter, feed in self._feeds:
            meter.report(feed.stats(), feed.counts)

    def _report_periodically(self) -> None:
        while not self._stop.wait(INTERVAL_S / 5):
            for meter, feed in list(self._feeds):
                meter.report_if_due(feed)


def _totals(stats: FeedStats, counts: Mapping[str, int]) -> list[tuple[str, tuple[str, ...], float]]:
    totals: list[tuple[str, tuple[str, ...], float]] = [
        ("lightwell_samples", (), stats.num_samples),
        ("lightwell_batches", (), stats.num_batches),
        ("lightwell_replaced", (), counts.get("replaced", 0)),
        ("lightwell_skipped", (), counts.get("skipped", 0)),
        ("lightwell_cache_hits", (), stats.cache_hits),
        ("lightwell_moved_bytes", (), stats.moved_bytes),
    ]
    for stage, step in sorted({(one.stage, step) for one in stats.threads for step in one.seconds}):
        totals.append(("lightwell_step_seconds", (stage, step), stats.seconds(stage, step)))
    for step in sorted({step for one in stats.threads for step in one.bytes}):
        totals.append(("lightwell_bytes", (step,), stats.bytes(step)))
    return totals


def _ray_runs() -> bool:
    """Return whether this process is connected to Ray, without importing it."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


@cache
def _metric(name: str) -> Any:
    """Create a metric, once per process."""
    from ray.util.metrics import Counter, Gauge

    totals = INSTRUMENTS[name]
    kind = Counter if totals.kind == "counter" else Gauge
    return kind(name, description=totals.description, tag_keys=(*TAGS, *totals.tags))
