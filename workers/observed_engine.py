"""Engine whose feeds are observed, for the quarantine list and for metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.stage_run import StageEngine
from .local_stages import open_local_stage

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Engine, Feed
    from ..pipeline.jobs.stage_run import StageRun
    from ..pipeline.jobs.stages import Inputs, Stage
    from ..pipeline.plan.plan import Plan
    from ..pipeline.plan.view import View


class ObservedEngine:
    """Engine that passes on each feed and run that it opens, and runs stages on every kind of engine.

    Args:
        engine: opens the feeds.
        observe: called with each feed, the name of its split or stage, and whether it resumes from a position.
    """

    def __init__(self, engine: Engine, observe: Callable[[Feed | StageRun, str, bool], None]) -> None:
        self._engine = engine
        self._observe = observe

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open a feed."""
        feed = self._engine.feed(plan, view) if position is None else self._engine.feed(plan, view, position)
        self._observe(feed, view.split or "all", position is not None)
        return feed

    def open_stage(self, stage: Stage, inputs: Inputs, position: Mapping[str, Any] | None = None) -> StageRun:
        """Open a run of a stage: on the engine if it is a ``StageEngine``, else in this process."""
        if isinstance(self._engine, StageEngine):
            run = self._engine.open_stage(stage, inputs, position)
        else:
            run = open_local_stage(stage, inputs, self._engine, position)
        self._observe(run, stage.name, position is not None)
        return run
