"""Learning-rate finder of a training job, for ``lightwell train --find-lr``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...pipeline.atomic_io import write_json
from ...pipeline.errors import PlanError, RunError
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..zoo.device import torch_device
from ..zoo.freezing import freeze_batch_norm, train_mode
from .distributed.context import DistributedContext
from .evaluation import EpochMetrics
from .job import TrainJob
from .optimization.lr_range import NUM_STEPS, RangeTest
from .resume import ResumeState
from .run.run import Run
from .step import UpdateGroup

PICTURE, CURVE = "lr_finder.png", "lr_finder.json"


@dataclass(frozen=True)
class FindLearningRate:
    """Job that trains a copy of another job's model for a few steps at rising learning rates, and keeps only the losses.

    The rates of all parameters rise together, in the proportions that the job gives them. With ``unfreeze`` the first stage
    is tested, with ``accumulate`` each batch is a step of its own. Torch's global random state is restored.
    """

    job: TrainJob

    @classmethod
    def of(cls, job: Any) -> FindLearningRate:
        """Wrap a training job; images run through its whole model, without cached features.

        Raises:
            PlanError: it is not one of ours, whose training step is known.
        """
        if not isinstance(job, TrainJob):
            raise PlanError(
                f"--find-lr: expected one of Lightwell's training jobs, got {type(job).__name__}; remove --find-lr"
            )
        return cls(job.model_copy(update={"feature_passes": None, "feature_dtype": None}))

    @property
    def plan(self) -> Plan:
        """The job's plan."""
        return self.job.plan

    @property
    def view(self) -> View:
        """The job's training view, with as many epochs as the test may need."""
        rows = len(self.plan.load_index().rows(self.job.train_split))
        steps = max(rows // self.plan.batch.size, 1)
        return replace(self.job.view, num_epochs=-(-NUM_STEPS // steps))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        return (PICTURE, CURVE)

    def check_request(self, *, trains_here: bool) -> None:
        """Check the job; see ``TrainJob.check_request``."""
        self.job.check_request(trains_here=trains_here)

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:
        """Run the range test, write curve and picture, print the suggestions and return them.

        Raises:
            RunError: there are too few batches, or no rate gives finite losses.
        """
        device = torch_device(self.job.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            run = Run.prepare(
                self.job, self.job.check(), context, DistributedContext(device=device), ResumeState()
            )
            found = RangeTest.run(_steps(run, feed))
        context.out.mkdir(parents=True, exist_ok=True)
        write_json(context.out / CURVE, found.as_dict())
        found.draw(context.out / PICTURE)
        rates = found.suggestions
        shown = ", ".join(f"{rate:.2g} ({name})" for name, rate in rates.items())
        context.console.print(
            f"learning rate: {shown}; to use the first: `optimizer: {{lr: {rates['valley']:.2g}}}`"
        )
        return found.as_dict()


def _steps(run: Run, feed: Feed) -> Callable[[float], float | None]:
    """Return a function that trains on the next batch at a learning rate and returns the loss."""
    data = run.open_data(feed, (0, 0))
    batches = (batch for epoch in range(feed.num_batches) for batch in data.epoch(epoch))
    step = run.make_step(data.module, run.spec.stages[0])
    train_mode(run.learner.model)
    if run.spec.batch_norm == "frozen":
        freeze_batch_norm(run.learner.model)

    def train_at(rate: float) -> float | None:
        batch = next(batches, None)
        if batch is None:
            return None
        running = EpochMetrics(run.task.running_metrics())
        torch.manual_seed(run.seed(0, batch.step))
        try:
            step(batch, running, factor=rate / run.spec.optimizer.lr, group=UpdateGroup(is_complete=True))
            step.end_epoch(running)
        except RunError:
            return math.nan
        return running.loss / max(running.num_read, 1)

    return train_at
