"""Engine whose feeds are observed, for the quarantine list and for metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.contracts import JobEngine
from .local_job_run import LocalJobRun

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import BatchJob, Engine, Feed, JobRun
    from ..pipeline.plan.plan import Plan
    from ..pipeline.plan.view import View


class ObservedEngine:
    """Engine that passes on each feed and run that it opens, and runs batch jobs on every kind of engine.

    Args:
        engine: opens the feeds.
        observe: called with each feed, its view, and whether it resumes from a position.
    """

    def __init__(
        self, engine: Engine | ObservedEngine, observe: Callable[[Feed | JobRun, View, bool], None]
    ) -> None:
        self._engine = engine
        self._observe = observe

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open a feed."""
        feed = self._engine.feed(plan, view) if position is None else self._engine.feed(plan, view, position)
        self._observe(feed, view, position is not None)
        return feed

    def open_job(self, job: BatchJob, position: Mapping[str, Any] | None = None) -> JobRun:
        """Open a run of a job: on the engine if it is a ``JobEngine``, else in this process."""
        if isinstance(self._engine, JobEngine):
            run = self._engine.open_job(job, position)
        else:
            run = LocalJobRun(job, self._engine.feed(job.plan, job.view, position))
        self._observe(run, job.view, position is not None)
        return run
