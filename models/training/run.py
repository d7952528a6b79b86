"""A training run from start to end: build or resume, learn step by step, measure, keep the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ...pipeline.atomic_io import write_json
from ...pipeline.errors import ModelError, RunError
from ...pipeline.index.index import Index
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.view import View
from ...pipeline.rng import keyed_bits
from ...pipeline.sampler.schedule import num_steps
from ..zoo.build import build_model
from ..zoo.freezing import freeze_before, train_mode
from ..zoo.heads import classifier_layers
from ..zoo.plan_checks import check_accepts
from ..zoo.weights_report import WeightsReport, weights_report
from .checkpoint import (
    BEST_NAME,
    LAST_NAME,
    Description,
    Progress,
    load_optimizer,
    load_weights,
    save_checkpoint,
)
from .checkpoint_timer import Pace
from .distributed.context import Ranks
from .loop import Learner, Objective, Outcome, Sums, evaluate
from .metrics_logger import METRICS_NAME, RESULT_NAME, Journal
from .optim import best_epoch
from .resume import History, Standing, is_done, place_in_view, read_standing
from .spec import ClassifySpec
from .train_data import FeatureLessons, ImageLessons, Lessons, split_batches


def run_job(spec: ClassifySpec, view: View, feed: Feed, context: Context) -> Mapping[str, Any]:
    """Run a training job, alone or as one of several ranks; torch's global random state is left as it was."""
    index = spec.check()
    standing = read_standing(spec, view, context.out)
    device = choose_device(spec)
    ranks = Ranks.here(device)
    if ranks.leads:
        context.out.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = Run.prepare(spec, index, context, ranks, standing)
        ranks.wait()  # no rank may still be reading what the first is about to write
        history = standing.history
        if not is_done(spec, history):
            if standing.progress is not None:
                place = f"step {standing.progress.step + 1} of epoch {len(history) + 1}/{spec.epochs}"
                context.console.say(f"going on with {place}")
            history = run.learn(feed, standing.progress or Progress())
        return run.finish(history)


def choose_device(spec: ClassifySpec) -> torch.device:
    """Choose where the model learns; of several GPUs the one that is torch's current device.

    Raises:
        ModelError: CUDA is asked for and there is none.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "device: expected a machine with CUDA, got one without it; write device: auto or cpu"
        )
    wanted = spec.device if spec.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted, torch.cuda.current_device()) if wanted == "cuda" else torch.device(wanted)


@dataclass(frozen=True)
class Run:
    """A model, its optimiser and what they belong to."""

    spec: ClassifySpec
    context: Context
    ranks: Ranks
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    description: Description
    num_steps: int
    """Of an epoch."""

    @classmethod
    def prepare(
        cls, spec: ClassifySpec, index: Index, context: Context, ranks: Ranks, standing: Standing
    ) -> Run:
        """Build the model, or load it as the last checkpoint has it."""
        model = build_model(
            spec.model, num_classes=len(index.classes), seed=torch_seed(spec, "init"), warn=False
        )
        if spec.fine_tune_from == "all":
            model.requires_grad_(True)
        else:
            freeze_before(model, spec.fine_tune_from)
        model = model.to(ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model = model.to(torch.float64 if spec.precision == "float64" else torch.float32)
        optimizer = spec.optimizer.build(*learning_parameters(model))
        last = context.out / LAST_NAME
        if standing.progress is not None:
            load_weights(last, model)
            load_optimizer(last, optimizer)
        report = begun_with(model)
        notes = spec.validation_notes(index)
        if not is_done(spec, standing.history):
            check_accepts(model, spec.plan)
            warned = (f"warning: {line}" for line in spec.plan_warnings())
            for line in (report.line(), *warned, *notes):
                context.console.say(line)
        rows = index.rows(spec.train_split)
        labels = index.table["label"].to_numpy()[rows]
        weights = balanced_weights(labels, len(index.classes)) if spec.class_weights == "balanced" else None
        weights = None if weights is None else weights.to(ranks.device, next(model.parameters()).dtype)
        objective = Objective(weights, spec.label_smoothing)
        named = spec.model.model_copy(
            update={
                "num_classes": len(index.classes),
                "transform_input": getattr(model, "transform_input", None),
            }
        )
        description = Description(
            named,
            index.classes,
            spec.plan.fingerprint(),
            spec.identity(),
            standing.history,
            report,
            "; ".join(notes),
        )
        steps = num_steps(len(rows), spec.plan.batch.size, drop_last=spec.drops_last(len(rows)))
        standing.check_place(steps)
        return cls(spec, context, ranks, model, optimizer, objective, description, steps)

    def learn(self, feed: Feed, progress: Progress) -> History:
        """Learn what is left; every finished epoch is on disk before the next begins."""
        spec, history = self.spec, self.description.history
        journal = Journal(self.context.out / METRICS_NAME)
        if self.ranks.leads and (lost := journal.keep_before(len(history))):
            self.context.console.say(
                f"{METRICS_NAME}: the lines of {lost:,} finished epochs are damaged or gone; the run goes on from the "
                "checkpoint, and the curves have a gap there"
            )
        at_feed = feed.position()
        lessons = self._lessons(feed)
        learner = Learner(lessons.module, self.optimizer, self.objective, self.ranks)
        pace = Pace(spec.checkpoint_every)
        for epoch in range(len(history), spec.epochs):
            sums = self._begun(progress if epoch == len(self.description.history) else Progress())
            train_mode(self.model)
            started = perf_counter() - sums.seconds
            for examples in lessons.epoch(epoch):
                torch.manual_seed(torch_seed(spec, "step", epoch, examples.step))
                factor = spec.schedule.factor(epoch + (examples.step + 0.5) / self.num_steps, spec.epochs)
                due = learner.step(examples, sums, factor=factor, wish=pace.is_due())
                sums.seconds = perf_counter() - started
                if due and spec.feature_passes is None:
                    with pace.writing():
                        self._keep_step(at_feed, epoch, examples.step + 1, sums, history)
            trained = sums.outcome(self.ranks)
            measured = evaluate(lessons.module, lessons.validation(), self.ranks)
            if measured.loss is None:
                raise RunError(
                    f"validation_split: expected labelled images of {spec.validation_split!r} that can be read, got none; "
                    "see quarantine.jsonl"
                )
            history = (*history, measured.as_dict())
            with pace.writing():
                self._keep_epoch(at_feed, epoch, trained, measured, journal, history)
            if is_done(spec, history):
                break
        return history

    def finish(self, history: History) -> Mapping[str, Any]:
        """Measure the test split with the best weights and write the result."""
        best = best_epoch(history, self.spec.best_by)
        path = self.context.out / BEST_NAME
        result: dict[str, Any] = {
            "best_epoch": best,
            "epochs": len(history),
            "best_by": self.spec.best_by,
            "notes": list(self.spec.validation_notes(self.spec.plan.load_index())),
            "validation": dict(history[best]),
            "test": None,
            "checkpoint": f"{self.context.destination or self.context.out}/{BEST_NAME}",
        }
        if self.spec.test_split is not None:
            if self.ranks.leads:  # the others may not see what the first has written
                load_weights(path, self.model)
            self.ranks.spread(self.model)
            batches = split_batches(
                self.context, self.spec.plan, self.spec.test_split, self.ranks.device, self.ranks
            )
            outcome = evaluate(self.model, batches, self.ranks)
            result["test"] = {**outcome.as_dict(), "confusion": outcome.metrics.confusion.tolist()}
            self.context.console.say(f"test, weights of epoch {best + 1}: {in_words(outcome)}")
        if self.ranks.leads:
            write_json(self.context.out / RESULT_NAME, result)
        self.context.publish()
        return result

    def _lessons(self, feed: Feed) -> Lessons:
        spec, split = self.spec, self.spec.validation_split
        source = ImageLessons if spec.feature_passes is None else FeatureLessons.collect
        return source(self.model, spec.plan, split, feed, self.context, self.ranks.device, self.ranks)

    def _begun(self, progress: Progress) -> Sums:
        """Take up the sums of an epoch; what is of single ranks goes on with the first."""
        sums = Sums.of_classes(len(self.description.classes))
        if progress.confusion is not None and self.ranks.leads:
            sums.confusion += progress.confusion
        sums.loss, sums.num_read, sums.seconds = progress.loss, progress.num_read, progress.seconds
        return sums

    def _keep_step(
        self, at_feed: Mapping[str, Any], epoch: int, step: int, sums: Sums, history: History
    ) -> None:
        """Write down where the run stands within an epoch; every rank takes part."""
        confusion, counts = self.ranks.sum(sums.confusion), self.context.commit_counts()
        position = self._position(at_feed, epoch, step)
        progress = Progress(step, position, counts, sums.loss, sums.num_read, sums.seconds, confusion)
        self._keep(history, progress)

    def _keep_epoch(
        self,
        at_feed: Mapping[str, Any],
        epoch: int,
        trained: Outcome,
        measured: Outcome,
        journal: Journal,
        history: History,
    ) -> None:
        """Write down a finished epoch; the last checkpoint comes last, as it says that the epoch is done."""
        spec = self.spec
        counts = self.context.commit_counts()
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        if self.ranks.leads:
            for split, outcome in ((spec.train_split, trained), (spec.validation_split, measured)):
                journal.append({"epoch": epoch, "split": split, **outcome.as_dict(), "lr": rate})
            if best_epoch(history, spec.best_by) == epoch:
                save_checkpoint(
                    self.context.out / BEST_NAME, self.model, replace(self.description, history=history)
                )
        self._keep(history, Progress(position=self._position(at_feed, epoch + 1, 0), counts=counts))
        self.context.console.say(
            f"epoch {epoch + 1}/{spec.epochs}: train loss {trained.loss:.4f}, {spec.validation_split} "
            f"{in_words(measured)}, lr {rate:.2g}, {trained.as_dict()['images_per_s']:.0f} images/s"
        )

    def _keep(self, history: History, progress: Progress) -> None:
        if self.ranks.leads:
            description = replace(self.description, history=history)
            save_checkpoint(self.context.out / LAST_NAME, self.model, description, self.optimizer, progress)
        self.context.publish()

    def _position(self, at_feed: Mapping[str, Any], epoch: int, step: int) -> dict[str, Any]:
        """Say where the feed goes on: behind what was learnt, whatever was read ahead."""
        return {**at_feed, **place_in_view(epoch, step, self.num_steps)}


def in_words(outcome: Outcome) -> str:
    """Say loss and metrics in a line; what is undefined says why."""
    metrics = outcome.metrics
    values = {
        "loss": outcome.loss,
        "accuracy": metrics.accuracy,
        "balanced_accuracy": metrics.balanced_accuracy,
        "auroc": metrics.auroc,
    }
    reasons = {name: f"undefined ({reason})" for name, reason in metrics.notes.items()}
    shown = {
        name: reasons.get(name, "undefined") if value is None else f"{value:.4f}"
        for name, value in values.items()
    }
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def learning_parameters(
    model: torch.nn.Module,
) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Split what learns into the parameters of the heads, of which distilled models have two, and the trunk's."""
    layers = [model.get_submodule(name) for name in classifier_layers(model)]
    head = {id(parameter) for layer in layers for parameter in layer.parameters()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in learning if id(p) in head], [p for p in learning if id(p) not in head]


def begun_with(model: torch.nn.Module) -> WeightsReport:
    """Return the model's weights report, with a note of the random layers that stay frozen."""
    report = weights_report(model)
    frozen = [
        name
        for name in report.untrained
        if not any(parameter.requires_grad for parameter in model.get_submodule(name).parameters())
    ]
    if not frozen:
        return report
    shown = ", ".join(frozen[:3]) + (f" and {len(frozen) - 3} more" if frozen[3:] else "")
    return report.with_note(f"random and frozen: {shown}")


def balanced_weights(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Weigh each class by images / (classes * images of the class): float64, shape (classes,)."""
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return torch.from_numpy(counts.sum() / (num_classes * counts))


def torch_seed(spec: ClassifySpec, purpose: str, epoch: int = 0, step: int = 0) -> int:
    """Key torch's generator by (plan seed, epoch, step): new heads and dropout are functions of them alone."""
    return keyed_bits(f"torch {purpose}", spec.plan.seed, epoch, str(step)) & (2**63 - 1)
