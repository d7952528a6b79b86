"""Training run: build or resume the model, train, validate after every epoch, keep the best weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ...pipeline.atomic_io import write_json
from ...pipeline.index.index import Index
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.view import View
from ...pipeline.sampler.schedule import num_steps
from ..features.feature_cache import FeatureCache
from ..features.recipe import check_image_transforms
from ..features.split_model import split_model
from .checkpoint import (
    BEST_NAME,
    LAST_NAME,
    CheckpointMetadata,
    Progress,
    load_optimizer,
    load_weights,
    read_metadata,
    save_checkpoint,
)
from .distributed.context import DistributedContext
from .evaluation import EpochMetrics, EvalResult, evaluate
from .loop import train
from .metrics_logger import METRICS_NAME, RESULT_NAME, MetricsLogger
from .optim import best_epoch
from .optimization.ema import AveragedWeights
from .optimization.lora import remove_lora
from .optimization.unfreezing import UnfreezeStage, set_trainable
from .optimization.update_state import load_update_state, update_state
from .prepare import (
    build_trainable,
    check_device,
    choose_device,
    initial_weights_report,
    open_features,
    torch_seed,
)
from .results import describe_test, format_result, write_run, write_training_curves
from .resume import ELAPSED, History, ResumeState, is_done, read_resume_state, view_position
from .saved_plan import SavedPlan
from .scores import ScoreRecorder, SplitScores
from .spec import TrainSpec
from .step import TrainStep, UpdateGroup
from .tasks.task import Criterion, Task
from .tensorboard import EVENTS_NAME
from .train_batch import TrainBatch
from .train_data import FeatureTrainData, ImageTrainData, TrainData, split_batches


def run_job(spec: TrainSpec, view: View, feed: Feed, context: Context) -> Mapping[str, Any]:
    """Run a training job, alone or as one of several ranks; torch's global random state is restored."""
    task = spec.check()
    resume = read_resume_state(spec, view, context.out)
    device = choose_device(spec)
    dist = DistributedContext.from_env(device)
    if dist.is_main:
        context.out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = Run.prepare(spec, task, context, dist, resume)
        dist.barrier()  # all ranks have read the checkpoint before the main rank overwrites it
        if dist.is_main:
            write_run(context.out, spec)
        history = resume.history
        if not is_done(spec, history):
            if resume.progress is not None:
                position = f"step {resume.progress.step + 1} of epoch {len(history) + 1}/{spec.epochs}"
                context.console.print(f"resuming at {position}")
            history = train(run, feed, resume.progress or Progress())
        return run.finish(history)


def check_request(spec: TrainSpec, *, trains_here: bool) -> None:
    """Check a job without reading images or writing files; see ``TrainJob.check_request``."""
    if trains_here:
        check_device(spec, choose_device(spec))
    model = build_trainable(spec, len(spec.check().classes))
    if spec.feature_passes is not None:
        split_model(model)
        check_image_transforms(spec.plan, augment=spec.feature_passes > 0)
        check_image_transforms(spec.plan, augment=False)
    spec.check_network(model)


@dataclass(frozen=True)
class Run:
    """A model with its optimizer, criterion and metadata."""

    spec: TrainSpec
    index: Index
    task: Task
    context: Context
    dist: DistributedContext
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    metadata: CheckpointMetadata
    num_steps: int
    """Batches per epoch."""
    module: torch.nn.Module
    """The module that takes the batches: the model, or with ``feature_passes`` its part behind the frozen one."""
    features: FeatureCache | None = None
    """Features of the frozen part, with ``feature_passes``."""
    average: AveragedWeights | None = None
    """Average of the weights, if the job asks for one."""
    scaler: torch.amp.GradScaler | None = None
    """Scale of the loss, for float16."""
    held_best: list[tuple[CheckpointMetadata, dict[str, torch.Tensor]]] = field(default_factory=list)
    """Best weights that are not written yet, at most one."""

    @classmethod
    def prepare(
        cls, spec: TrainSpec, task: Task, context: Context, dist: DistributedContext, resume: ResumeState
    ) -> Run:
        """Build the model and optimizer, and load the last checkpoint if there is one."""
        index = spec.plan.load_index()
        model = build_trainable(spec, len(task.classes))
        model = model.to(dist.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = model.to(torch.float64 if spec.precision == "float64" else torch.float32)
        if spec.batch_norm == "sync" and dist.num_ranks > 1:
            model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        optimizer = spec.optimizer.build_for(model, spec.head_layers(model))
        last = context.out / LAST_NAME
        if resume.progress is not None:
            load_weights(last, model)
            load_optimizer(last, optimizer)
        average = None if spec.ema is None else AveragedWeights(model, spec.ema)
        scaler = torch.amp.GradScaler(dist.device.type) if spec.precision == "float16" else None
        if resume.progress is not None:
            load_update_state(last, average, scaler)
        report = initial_weights_report(model)
        notes = spec.validation_notes(index, task)
        if not is_done(spec, resume.history):
            spec.check_network(model)
            warned = (f"warning: {line}" for line in spec.plan_warnings())
            for line in (report.line(), *warned, *notes):
                context.console.print(line)
        rows = index.rows(spec.train_split)
        criterion = task.criterion(training=True, like=next(model.parameters()))
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
        steps = num_steps(len(rows), spec.plan.batch.size, drop_last=spec.drop_last_batch(len(rows)))
        resume.check_position(steps)
        module, features = model, None
        if spec.feature_passes is not None:
            split = split_model(model)
            module, features = split.rest, open_features(spec, index, context, dist, split)
        return cls(
            spec,
            index,
            task,
            context,
            dist,
            model,
            optimizer,
            criterion,
            metadata,
            steps,
            module,
            features,
            average,
            scaler,
        )

    def truncate_log(self) -> None:
        """Remove lines of unfinished epochs from ``metrics.jsonl``, and print how many lines of finished ones are missing."""
        finished = len(self.metadata.history)
        if self.dist.is_main and (num_missing := self._logger.truncate_from(finished)):
            self.context.console.print(
                f"{METRICS_NAME}: the lines of {num_missing:,} finished epochs are damaged or missing; the run resumes from the "
                "checkpoint, and the training curves have a gap"
            )

    def make_step(self, module: torch.nn.Module, stage: UnfreezeStage) -> TrainStep:
        """Set what learns in a stage and return the training step of a module, the model or its head."""
        if len(self.spec.stages) > 1:
            set_trainable(self.model, stage.start)
        return TrainStep(
            module, self.optimizer, self.criterion, self.dist, self.spec, self.average, self.scaler
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

    def averaged(self) -> AbstractContextManager[None]:
        """Give the model its averaged weights within the context, if there are any."""
        return nullcontext() if self.average is None else self.average.applied()

    def history_row(self, trained: EvalResult, validated: EvalResult, history: History) -> Mapping[str, Any]:
        """Return the history's row of a finished epoch: validation metrics and, with a time budget, the time so far."""
        if self.spec.time_budget is None:
            return validated.as_dict()
        own = trained.seconds + validated.seconds if self.dist.is_main else 0.0
        spent = float(self.dist.all_reduce(torch.tensor(own, dtype=torch.float64)))
        before = float(history[-1].get(ELAPSED, 0.0)) if history else 0.0
        return {**validated.as_dict(), ELAPSED: round(before + spent, 3)}

    def finish(self, history: History) -> Mapping[str, Any]:
        """Evaluate the best weights on the test split and write the result."""
        best = best_epoch(history, self.spec.monitor)
        path = self.context.out / BEST_NAME
        result: dict[str, Any] = {
            "best_epoch": best,
            "epochs": len(history),
            "monitor": self.spec.monitor,
            "notes": list(self.spec.validation_notes(self.index, self.task)),
            "validation": dict(history[best]),
            "test": None,
            "checkpoint": f"{self.context.destination or self.context.out}/{BEST_NAME}",
        }
        if self.spec.test_split is not None:
            remove_lora(self.model)  # the best weights are those of the plain network
            if self.dist.is_main:  # other ranks may not see the main rank's files
                load_weights(path, self.model)
            self.dist.broadcast(self.model)
            module, batches = self._split(self.spec.test_split)
            num_rows = self._num_rows(self.spec.test_split)
            recorder = ScoreRecorder(self.task)
            tested = evaluate(module, batches, recorder, num_rows, self.dist)
            scores = recorder.gather(self.dist)
            saved = read_metadata(path)[0] if self.dist.is_main else self.metadata
            details = tested.metrics.details(saved.thresholds)
            result["test"] = {**tested.as_dict(), **details}
            if self.dist.is_main:
                out = self.context.out
                result["test"] |= describe_test(details, self.task, scores, saved.temperature, out)
            self.context.console.print(
                f"test, weights of epoch {best + 1}: {format_result(tested, self.task)}"
            )
        if self.dist.is_main:
            write_training_curves(self.context.out / METRICS_NAME, self.context.out)
            write_json(self.context.out / RESULT_NAME, result)
        self.context.publish()
        return result

    def open_data(self, feed: Feed, start: tuple[int, int]) -> TrainData:
        """Return the batches of the epochs from a position on: images, or features computed once."""
        spec, split = self.spec, self.spec.validation_split
        if self.features is None:
            return ImageTrainData(
                self.model,
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
            self.module,
            self.features,
            view,
            passes=passes,
            validation_split=split,
            start=start,
            targets=self.task.targets,
        )

    @property
    def _logger(self) -> MetricsLogger:
        events = self.context.out / EVENTS_NAME if self.spec.tensorboard else None
        return MetricsLogger(self.context.out / METRICS_NAME, events)

    @property
    def num_validated(self) -> int:
        """Rows of the validation split."""
        return self._num_rows(self.spec.validation_split)

    def _split(self, split: str) -> tuple[torch.nn.Module, Iterator[TrainBatch]]:
        """Return the batches of a split that is evaluated, and the module that they are the input of."""
        if self.features is not None:
            return self.module, self.features.open(split).batches(View(split=split), self.task.targets)
        batches = split_batches(
            self.context, self.spec.plan, split, self.dist.device, self.dist, self.task.targets
        )
        return self.model, batches

    def _num_rows(self, split: str) -> int:
        return len(self.index.rows(split))

    def restore_metrics(self, progress: Progress) -> EpochMetrics:
        """Restore the running metrics of an epoch; their sums continue on the main rank."""
        running = EpochMetrics(self.task.running_metrics())
        if self.dist.is_main:
            for name, value in progress.sums.items():
                running.metrics.sums[name].add_(value)
        running.loss, running.num_read, running.seconds = progress.loss, progress.num_read, progress.seconds
        return running

    def save_step(
        self,
        feed_position: Mapping[str, Any],
        epoch: int,
        step: int,
        running: EpochMetrics,
        history: History,
    ) -> None:
        """Save a checkpoint within an epoch; a collective operation of all ranks."""
        sums = {name: self.dist.all_reduce(value) for name, value in running.metrics.sums.items()}
        counts = self.context.commit_counts()
        position = self._position(feed_position, epoch, step)
        progress = Progress(step, position, counts, running.loss, running.num_read, running.seconds, sums)
        self._save(history, progress)

    def save_epoch(
        self,
        feed_position: Mapping[str, Any],
        epoch: int,
        trained: EvalResult,
        validated: EvalResult,
        history: History,
        scores: SplitScores | None,
        *,
        write: bool = True,
    ) -> None:
        """Save a finished epoch: metrics, best weights, and last the checkpoint, which marks the epoch as finished.

        Without ``write`` only the metrics are written; best weights are held until the next checkpoint.
        """
        spec = self.spec
        counts = self.context.commit_counts()
        last = UpdateGroup.of(epoch, self.num_steps - 1, self.num_steps, spec.accumulate)
        factor = self.rate_factor(last.done_epochs, history[:-1])
        rate = max(group["base_lr"] for group in self.optimizer.param_groups) * factor
        if self.dist.is_main:
            for split, result in ((spec.train_split, trained), (spec.validation_split, validated)):
                self._logger.append({"epoch": epoch, "split": split, **result.as_dict(), "lr": rate})
            if best_epoch(history, spec.monitor) == epoch:
                chosen = replace(
                    self.metadata,
                    history=history,
                    thresholds=validated.metrics.thresholds,
                    temperature=1.0 if scores is None else scores.fit_temperature(),
                )
                with self.averaged():
                    weights = self.model.state_dict()
                    if not write:
                        weights = {name: one.clone() for name, one in weights.items()}
                    self.held_best[:] = [(chosen, weights)]
                    if write:
                        self._write_best()
        if write:
            self._write_best()
            self._save(history, Progress(position=self._position(feed_position, epoch + 1, 0), counts=counts))
        self.context.console.print(
            f"epoch {epoch + 1}/{spec.epochs}: train loss {trained.loss:.4f}, {spec.validation_split} "
            f"{format_result(validated, self.task)}, lr {rate:.2g}, {trained.as_dict()['images_per_s']:.0f} images/s"
        )

    def _write_best(self) -> None:
        """Write the best weights that are held, if there are any."""
        for metadata, weights in self.held_best:
            save_checkpoint(self.context.out / BEST_NAME, weights, metadata)
        self.held_best.clear()

    def _save(self, history: History, progress: Progress) -> None:
        if self.dist.is_main:
            metadata = replace(self.metadata, history=history)
            state = update_state(self.average, self.scaler)
            save_checkpoint(
                self.context.out / LAST_NAME, self.model, metadata, self.optimizer, progress, state
            )
        self.context.publish()

    def _position(self, feed_position: Mapping[str, Any], epoch: int, step: int) -> dict[str, Any]:
        """Return the feed position after a training step, regardless of prefetched batches."""
        return {**feed_position, **view_position(epoch, step, self.num_steps)}
