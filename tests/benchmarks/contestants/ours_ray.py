"""Lightwell on Ray, on this machine: batches that come from an actor, a job in the actor, and what Ray costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from lightwell import Plan, View
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.jobs.stages import BatchStage
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.engine import RayEngine, RayFeed

from benchmarks.benchmark import NUM_WORKERS, SIDE, Work
from benchmarks.contestants.ours import many_epochs, plan_for
from benchmarks.processes import cpu_of_all
from benchmarks.throughput import check_batch

NUM_SETTLING = 20
"""Batches until processes have started and queues are full."""
ENGINE = RayEngine(num_workers=1, per_worker=Resources(NUM_WORKERS))
"""One worker with as many threads as the others have workers."""


@dataclass(frozen=True)
class Glance:
    """A batch job that does no more with a batch than those do who measure a feed."""

    plan: Plan
    view: View
    schema = pa.schema({"images": pa.int64()})

    def fingerprint(self) -> str:
        """Return the plan's fingerprint."""
        return self.plan.fingerprint()

    @contextmanager
    def open(self) -> Iterator[Any]:
        """Yield what looks at one value of each image."""
        yield lambda batch: pa.record_batch(
            {"images": [check_batch(batch.images, "uint8")]}, schema=self.schema
        )

    def finish(self, records: Any, context: Any) -> dict[str, Any]:
        """Return nothing."""
        return {}


def start_ray() -> None:
    """Start Ray with as many CPUs as every contestant may have; its workers import this module by name."""
    ray.init(num_cpus=NUM_WORKERS, include_dashboard=False, log_to_driver=False, logging_level="error")


def view_for(work: Work) -> View:
    """A training view that outlasts the benchmark."""
    return View(shuffle=True, augment=True, num_epochs=many_epochs(work))


def open_feed(work: Work) -> RayFeed:
    """Open the feed that all rows measure."""
    start_ray()
    return ENGINE.feed(plan_for(work), view_for(work))


def feed(work: Work) -> Iterator[torch.Tensor]:
    """Yield the images of batches that an actor makes and that travel here."""
    with open_feed(work) as batches:
        for batch in batches:
            yield batch.images


def colocated(work: Work) -> Iterator[np.ndarray]:
    """Look at the batches in the actor that makes them; yields arrays of as many images, which have no memory."""
    start_ray()
    with ENGINE.open_stage(BatchStage(Glance(plan_for(work), view_for(work))), {}) as done:
        for batch in done:
            yield np.broadcast_to(np.uint8(0), (batch.num_read, SIDE, SIDE, 3))


def first_batch(work: Work) -> float:
    """Seconds from opening a feed on a cluster that runs until its first batch is here."""
    plan = plan_for(work)
    start_ray()
    started = time.perf_counter()
    with ENGINE.feed(plan, view_for(work)) as batches:
        next(iter(batches))
        return time.perf_counter() - started


def epoch_start(work: Work) -> float:
    """Return how long the first two batches of an epoch let wait, as a multiple of what two batches do; 1 is no pause.

    Two, since a worker makes two at a time: they come in pairs.
    """
    starts, others = [], []
    for batch, waited in timed(work):
        if batch.epoch > 0:
            (starts if batch.step < 2 else others).append(waited)
    return statistics.mean(starts) / statistics.mean(others)


def workers_wait(work: Work) -> float:
    """Return the percentage of their time in which the worker's threads had nothing to make."""
    with open_feed(work) as batches:
        for _ in until(batches, work.seconds):
            pass
        stats = batches.stats()
    lost = stats.share("process", "output")
    return 100 * lost


def taking_over(work: Work) -> float:
    """Return the percentage of the time in which this process copied batches out of the object store."""
    with open_feed(work) as batches:
        for _ in until(batches, work.seconds):
            pass
        stats = batches.stats()
    return 100 * stats.seconds("consume", "batch") / (stats.wall_s - stats.first_batch_s)


def driver_cpu(work: Work) -> float:
    """Return the percentage of the processor time that this process takes: scheduling tasks, copying batches out."""
    spent = cpu_spent(work)
    return 100 * spent["driver"] / sum(spent.values())


def ray_cpu(work: Work) -> float:
    """Return the percentage of the processor time that Ray's own processes take, such as raylet and control service."""
    spent = cpu_spent(work)
    return 100 * spent["ray"] / sum(spent.values())


def cpu_spent(work: Work) -> dict[str, float]:
    """Read a feed for some seconds after its first batches; returns what each kind of process took meanwhile."""
    with open_feed(work) as batches:
        before, end = None, float("inf")
        for number, _ in enumerate(batches):
            if number == NUM_SETTLING:
                before, end = cpu_of_all(), time.perf_counter() + work.seconds
            if time.perf_counter() > end:
                break
        assert before is not None
        return {name: seconds - before[name] for name, seconds in cpu_of_all().items()}


def timed(work: Work) -> Iterator[tuple[Batch, float]]:
    """Yield batches with the seconds that each was waited for."""
    with open_feed(work) as batches:
        before = time.perf_counter()
        for batch in until(batches, work.seconds):
            now = time.perf_counter()
            yield batch, now - before
            before = time.perf_counter()


def until(batches: RayFeed, seconds: float) -> Iterator[Batch]:
    """Yield batches for some seconds after the first, and at least for three epochs."""
    end = None
    for batch in batches:
        end = end or time.perf_counter() + seconds
        yield batch
        if time.perf_counter() > end and batch.epoch > 2:
            return
