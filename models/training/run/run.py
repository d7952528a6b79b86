"""A training run: model, task and data, and what its steps depend on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ....pipeline.index.index import Index
from ....pipeline.jobs.contracts import Context, Feed
from ....pipeline.plan.view import View
from ....pipeline.sampler.schedule import num_steps
from ...features.feature_cache import FeatureCache
from ..checkpoint import LAST_NAME, CheckpointMetadata, Progress
from ..distributed.context import DistributedContext
from ..evaluation import EpochMetrics, EvalResult
from ..optimization.unfreezing import UnfreezeStage, set_trainable
from ..prepare import initial_weights_report, open_features, torch_seed
from ..resume import ELAPSED, History, ResumeState, is_done
from ..saved_plan import SavedPlan
from ..spec import TrainSpec
from ..step import TrainStep
from ..tasks.task import Task
from ..train_batch import TrainBatch
from ..train_data import FeatureTrainData, ImageTrainData, TrainData, split_batches
from .learner import Learner


@dataclass(frozen=True)
class Run:
    """A model that learns a task, with its data."""

    spec: TrainSpec
    index: Index
    task: Task
    context: Context
    dist: DistributedContext
    learner: Learner
    metadata: CheckpointMetadata
    """Of the checkpoints, with the epochs that were finished before."""
    num_train: int
    """Images of an epoch."""
    features: FeatureCache | None = None
    """Features of the frozen part of the model, with ``feature_passes``."""

    @classmethod
    def prepare(
        cls, spec: TrainSpec, task: Task, context: Context, dist: DistributedContext, resume: ResumeState
    ) -> Run:
        """Build the model and optimizer, and load the last checkpoint if there is one."""
        index = spec.plan.load_index()
        last = None if resume.progress is None else context.out / LAST_NAME
        learner = Learner.build(spec, len(task.classes), dist, last)
        model = learner.model
        report = initial_weights_report(model)
        notes = spec.validation_notes(index, task)
        if not is_done(spec, resume.history):
            spec.check_network(model)
            warned = (f"warning: {line}" for line in spec.plan_warnings())
            for line in (report.line(), *warned, *notes):
                context.console.print(line)
        metadata = CheckpointMetadata(
            spec.saved_model(model, len(task.classes)),
            task.classes,
            spec.plan.fingerprint(),
            spec.result_config(),
            resume.history,
            report,
            "; ".join(notes),
            spec.task_name,
            plan=SavedPlan.of(spec.plan),
        )
        num_rows = len(index.rows(spec.train_split))
        features = None
        if learner.split is not None:
            features = open_features(spec, index, context, dist, learner.split)
        run = cls(spec, index, task, context, dist, learner, metadata, num_rows, features)
        resume.check_position(run.num_steps)
        return run

    @property
    def num_steps(self) -> int:
        """Batches per epoch."""
        drops = self.spec.drop_last_batch(self.num_train)
        return num_steps(self.num_train, self.spec.plan.batch.size, drop_last=drops)

    def num_images(self, batch: TrainBatch) -> int:
        """Return the images of a training batch over all ranks; with several of them none is left out."""
        if self.dist.num_ranks == 1:
            return batch.num_images
        size = self.spec.plan.batch.size
        return min(size, self.num_train - batch.step * size)

    def make_step(self, module: torch.nn.Module, stage: UnfreezeStage) -> TrainStep:
        """Set what learns in a stage and return the training step of a module, the model or its head."""
        learner = self.learner
        if len(self.spec.stages) > 1:
            set_trainable(learner.model, stage.start)
        criterion = self.task.criterion(training=True, like=next(learner.model.parameters()))
        return TrainStep(
            module, learner.optimizer, criterion, self.dist, self.spec, learner.average, learner.scaler
        )

    def rate_factor(self, done_epochs: float, history: History) -> float:
        """Return the multiplier of all peak learning rates."""
        spec = self.spec
        return spec.schedule.factor(
            done_epochs, spec.epochs, peak=spec.optimizer.lr, history=history, monitor=spec.monitor
        )

    def seed(self, epoch: int, step: int) -> int:
        """Return the seed of a step's dropout and stochastic depth."""
        return torch_seed(self.spec, "step", epoch, step)

    def history_row(self, trained: EvalResult, validated: EvalResult, history: History) -> Mapping[str, Any]:
        """Return the history's row of a finished epoch: validation metrics and, with a time budget, the time so far."""
        if self.spec.time_budget is None:
            return validated.as_dict()
        own = trained.seconds + validated.seconds if self.dist.is_main else 0.0
        spent = float(self.dist.all_reduce(torch.tensor(own, dtype=torch.float64)))
        before = float(history[-1].get(ELAPSED, 0.0)) if history else 0.0
        return {**validated.as_dict(), ELAPSED: round(before + spent, 3)}

    def open_data(self, feed: Feed, start: tuple[int, int]) -> TrainData:
        """Return the batches of the epochs from a position on: images, or features computed once."""
        spec, split = self.spec, self.spec.validation_split
        if self.features is None:
            return ImageTrainData(
                self.learner.model,
                spec.plan,
                split,
                feed,
                self.context,
                self.dist.device,
                self.dist,
                self.task.targets,
            )
        drops = spec.drop_last_batch(len(self.features.index.rows(spec.train_split)))
        view = View(split=spec.train_split, shuffle=True, augment=True, drop_last=drops)
        passes = spec.feature_passes or 0
        return FeatureTrainData(
            self.learner.module,
            self.features,
            view,
            passes=passes,
            validation_split=split,
            start=start,
            targets=self.task.targets,
        )

    def split_batches(self, split: str) -> Iterator[TrainBatch]:
        """Return the batches of a split that is evaluated, of images or features."""
        if self.features is not None:
            return self.features.open(split).batches(View(split=split), self.task.targets)
        return split_batches(
            self.context, self.spec.plan, split, self.dist.device, self.dist, self.task.targets
        )

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return len(self.index.rows(split))

    def restore_metrics(self, progress: Progress) -> EpochMetrics:
        """Restore the running metrics of an epoch; their sums continue on the main rank."""
        running = EpochMetrics(self.task.running_metrics())
        if self.dist.is_main:
            for name, value in progress.sums.items():
                running.metrics.sums[name].add_(value)
        running.loss, running.num_read, running.seconds = progress.loss, progress.num_read, progress.seconds
        return running
