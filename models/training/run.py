"""Training run: build or resume the model, train, validate after every epoch, keep the best weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch

from ...pipeline.atomic_io import write_json
from ...pipeline.errors import ModelError, RunError
from ...pipeline.index.index import Index
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.view import View
from ...pipeline.rng import derive_seed
from ...pipeline.sampler.schedule import num_steps
from ...pipeline.text import first_few
from ..features.feature_cache import FOLDER, FeatureCache, Trunk
from ..features.recipe import check_image_transforms
from ..features.split_model import split_model
from ..zoo.freezing import blocks, freeze_before, train_mode
from ..zoo.weights_report import WeightsReport, weights_report
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
from .checkpoint_timer import CheckpointTimer
from .distributed.context import DistributedContext
from .loop import EpochMetrics, EvalResult, TrainStep, evaluate
from .metrics_logger import METRICS_NAME, RESULT_NAME, MetricsLogger
from .optim import best_epoch
from .resume import History, ResumeState, is_done, read_resume_state, view_position
from .saved_plan import SavedPlan
from .spec import TrainSpec
from .tasks.task import Criterion, Task
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
        history = resume.history
        if not is_done(spec, history):
            if resume.progress is not None:
                position = f"step {resume.progress.step + 1} of epoch {len(history) + 1}/{spec.epochs}"
                context.console.print(f"resuming at {position}")
            history = run.train(feed, resume.progress or Progress())
        return run.finish(history)


def check_request(spec: TrainSpec, *, trains_here: bool) -> None:
    """Check a job without reading images or writing files; see ``TrainJob.check_request``."""
    if trains_here:
        choose_device(spec)
    model = build_trainable(spec, len(spec.check().classes))
    if spec.feature_passes is not None:
        split_model(model)
        check_image_transforms(spec.plan, augment=spec.feature_passes > 0)
        check_image_transforms(spec.plan, augment=False)
    spec.check_network(model)


def build_trainable(spec: TrainSpec, num_outputs: int) -> torch.nn.Module:
    """Build the model on the CPU, with everything before ``fine_tune_from`` frozen.

    Raises:
        ModelError: the model, its weights or the block do not exist or do not fit.
    """
    model = spec.build_network(num_outputs, seed=torch_seed(spec, "init"))
    if spec.fine_tune_from == "all":
        model.requires_grad_(True)
    else:
        freeze_before(model, spec.fine_tune_from)
    if getattr(spec.model, "auxiliary_heads", False) and spec.fine_tune_from is None:
        raise ModelError(
            "auxiliary_heads: expected fine_tune_from, got a frozen backbone, which they cannot train; write "
            "fine_tune_from: all, or remove auxiliary_heads"
        )
    return model


def choose_device(spec: TrainSpec) -> torch.device:
    """Choose the training device; of several GPUs, torch's current device.

    Raises:
        ModelError: CUDA is requested but not available.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "device: expected a machine with CUDA, got one without it; write device: auto or cpu"
        )
    wanted = spec.device if spec.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted, torch.cuda.current_device()) if wanted == "cuda" else torch.device(wanted)


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
    """Steps per epoch."""
    module: torch.nn.Module
    """The module that takes the batches: the model, or with ``feature_passes`` its part behind the frozen one."""
    features: FeatureCache | None = None
    """Features of the frozen part, with ``feature_passes``."""

    @classmethod
    def prepare(
        cls, spec: TrainSpec, task: Task, context: Context, dist: DistributedContext, resume: ResumeState
    ) -> Run:
        """Build the model and optimizer, and load the last checkpoint if there is one."""
        index = spec.plan.load_index()
        model = build_trainable(spec, len(task.classes))
        model = model.to(dist.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = model.to(torch.float64 if spec.precision == "float64" else torch.float32)
        optimizer = spec.optimizer.build_for(model, spec.head_layers(model))
        last = context.out / LAST_NAME
        if resume.progress is not None:
            load_weights(last, model)
            load_optimizer(last, optimizer)
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
            spec, index, task, context, dist, model, optimizer, criterion, metadata, steps, module, features
        )

    def train(self, feed: Feed, progress: Progress) -> History:
        """Train the remaining epochs; each is checkpointed before the next begins."""
        spec, history = self.spec, self.metadata.history
        logger = MetricsLogger(self.context.out / METRICS_NAME)
        if self.dist.is_main and (num_missing := logger.truncate_from(len(history))):
            self.context.console.print(
                f"{METRICS_NAME}: the lines of {num_missing:,} finished epochs are damaged or missing; the run resumes from the "
                "checkpoint, and the training curves have a gap"
            )
        feed_position = feed.position()
        data = self._train_data(feed, (len(history), progress.step))
        train_step = TrainStep(data.module, self.optimizer, self.criterion, self.dist)
        timer = CheckpointTimer(spec.checkpoint_every)
        for epoch in range(len(history), spec.epochs):
            running = self._restore_metrics(progress if epoch == len(self.metadata.history) else Progress())
            train_mode(self.model)
            started = perf_counter() - running.seconds
            for batch in data.epoch(epoch):
                torch.manual_seed(torch_seed(spec, "step", epoch, batch.step))
                factor = self._rate_factor(epoch + (batch.step + 0.5) / self.num_steps, history)
                due = train_step(batch, running, factor=factor, checkpoint_requested=timer.is_due())
                running.seconds = perf_counter() - started
                if due:
                    with timer.measure_write():
                        self._save_step(feed_position, epoch, batch.step + 1, running, history)
            trained = running.compute(self.dist)
            validated = evaluate(
                data.module, data.validation(), self.task, self._num_rows(spec.validation_split), self.dist
            )
            if validated.loss is None:
                raise RunError(
                    f"validation_split: expected labelled images of {spec.validation_split!r} that can be read, got none; "
                    "see quarantine.jsonl"
                )
            history = (*history, validated.as_dict())
            with timer.measure_write():
                self._save_epoch(feed_position, epoch, trained, validated, logger, history)
            if is_done(spec, history):
                break
        return history

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
            if self.dist.is_main:  # other ranks may not see the main rank's files
                load_weights(path, self.model)
            self.dist.broadcast(self.model)
            module, batches = self._split(self.spec.test_split)
            num_rows = self._num_rows(self.spec.test_split)
            tested = evaluate(module, batches, self.task, num_rows, self.dist)
            chosen = read_metadata(path)[0].thresholds if self.dist.is_main else ()
            result["test"] = {**tested.as_dict(), **tested.metrics.details(chosen)}
            self.context.console.print(
                f"test, weights of epoch {best + 1}: {format_result(tested, self.task)}"
            )
        if self.dist.is_main:
            write_json(self.context.out / RESULT_NAME, result)
        self.context.publish()
        return result

    def _rate_factor(self, done_epochs: float, history: History) -> float:
        """Return the multiplier of every parameter group's peak learning rate."""
        spec = self.spec
        return spec.schedule.factor(
            done_epochs, spec.epochs, peak=spec.optimizer.lr, history=history, monitor=spec.monitor
        )

    def _train_data(self, feed: Feed, start: tuple[int, int]) -> TrainData:
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

    def _restore_metrics(self, progress: Progress) -> EpochMetrics:
        """Restore the running metrics of an epoch; their sums continue on the main rank."""
        running = EpochMetrics(self.task.running_metrics())
        if self.dist.is_main:
            for name, value in progress.sums.items():
                running.metrics.sums[name].add_(value)
        running.loss, running.num_read, running.seconds = progress.loss, progress.num_read, progress.seconds
        return running

    def _save_step(
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

    def _save_epoch(
        self,
        feed_position: Mapping[str, Any],
        epoch: int,
        trained: EvalResult,
        validated: EvalResult,
        logger: MetricsLogger,
        history: History,
    ) -> None:
        """Save a finished epoch: metrics, best weights, and last the checkpoint, which marks the epoch as finished."""
        spec = self.spec
        counts = self.context.commit_counts()
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        if self.dist.is_main:
            for split, result in ((spec.train_split, trained), (spec.validation_split, validated)):
                logger.append({"epoch": epoch, "split": split, **result.as_dict(), "lr": rate})
            if best_epoch(history, spec.monitor) == epoch:
                chosen = replace(self.metadata, history=history, thresholds=validated.metrics.thresholds)
                save_checkpoint(self.context.out / BEST_NAME, self.model, chosen)
        self._save(history, Progress(position=self._position(feed_position, epoch + 1, 0), counts=counts))
        self.context.console.print(
            f"epoch {epoch + 1}/{spec.epochs}: train loss {trained.loss:.4f}, {spec.validation_split} "
            f"{format_result(validated, self.task)}, lr {rate:.2g}, {trained.as_dict()['images_per_s']:.0f} images/s"
        )

    def _save(self, history: History, progress: Progress) -> None:
        if self.dist.is_main:
            metadata = replace(self.metadata, history=history)
            save_checkpoint(self.context.out / LAST_NAME, self.model, metadata, self.optimizer, progress)
        self.context.publish()

    def _position(self, feed_position: Mapping[str, Any], epoch: int, step: int) -> dict[str, Any]:
        """Return the feed position after a training step, regardless of prefetched batches."""
        return {**feed_position, **view_position(epoch, step, self.num_steps)}


def open_features(
    spec: TrainSpec, index: Index, context: Context, dist: DistributedContext, trunk: Trunk
) -> FeatureCache:
    """Open the features of a trunk: in the plan's cache, else below the output folder if that is local."""
    folder = None if "://" in context.destination else context.out / FOLDER
    if spec.plan.cache is not None:
        folder = spec.plan.cache.dir
    return FeatureCache(trunk, spec.model.name, spec.plan, index, context, dist.device, dist, folder)


def format_result(result: EvalResult, task: Task) -> str:
    """Format loss and metrics as one line, with the reason for each undefined metric."""
    values = {"loss": result.loss, **result.metrics.as_dict()}
    reasons = {name: f"undefined ({reason})" for name, reason in result.metrics.notes.items()}
    shown = {
        name: reasons.get(name, "undefined") if values.get(name) is None else f"{values[name]:.4f}"
        for name in ("loss", *task.metric_names)
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def initial_weights_report(model: torch.nn.Module) -> WeightsReport:
    """Return the model's weights report, with a note of random layers that are frozen."""
    report = weights_report(model)
    frozen = [
        name
        for name in report.untrained
        if not any(parameter.requires_grad for parameter in model.get_submodule(name).parameters())
    ]
    if not frozen:
        return report
    inside = tuple(f"{name}." for name in frozen)
    first = next((block for block in blocks(model) if block in frozen or block.startswith(inside)), "all")
    return report.with_note(f"random and frozen: {first_few(frozen)}; fine_tune_from: {first} trains them")


def torch_seed(spec: TrainSpec, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """Derive a seed for torch's generator from (plan seed, epoch, step), for new heads and dropout."""
    return derive_seed(f"torch {purpose}", spec.plan.seed, epoch, str(step)) & (2**63 - 1)
