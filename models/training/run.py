"""A training run from start to end: build or resume, learn epoch by epoch, measure, keep the best."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...pipeline.dataset.index import Index
from ...pipeline.errors import ModelError, PlanError
from ...pipeline.jobs import Context, Feed
from ...pipeline.keys import keyed_bits
from ...pipeline.schedule import num_steps
from ...pipeline.view import View
from ..freezing import freeze_before, train_mode
from ..zoo import build_model, head_module
from .checkpoint import (
    BEST_NAME,
    LAST_NAME,
    Description,
    load_optimizer,
    load_weights,
    read_description,
    save_checkpoint,
)
from .journal import METRICS_NAME, RESULT_NAME, Journal, write_aside
from .loop import Objective, Outcome, evaluate, train_epoch
from .recipe import best_epoch
from .sources import FeatureLessons, ImageLessons, Lessons, split_batches

if TYPE_CHECKING:
    from .job import Classify

History = tuple[Mapping[str, Any], ...]


def run_job(job: Classify, feed: Feed, context: Context) -> Mapping[str, Any]:
    """Run a training job; torch's global random state is left as it was."""
    index = job.check()
    history = finished_epochs(job, context.out)
    context.out.mkdir(parents=True, exist_ok=True)
    device = choose_device(job)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = Run.prepare(job, index, context, device, history)
        if not is_done(job, history):
            history = run.learn(feed)
        return run.finish(history)


def remaining_view(job: Classify, out: Path) -> View:
    """Return the view of the epochs that a run in ``out`` has not finished."""
    done = len(finished_epochs(job, out))
    if job.feature_passes is not None or done == 0:
        return job.view
    return replace(job.view, first_epoch=done, num_epochs=max(job.epochs - done, 1))


def is_done(job: Classify, history: History) -> bool:
    """Say whether nothing is left to learn."""
    return len(history) >= job.epochs or (job.early_stop is not None and job.early_stop.reached(history))


def finished_epochs(job: Classify, out: Path) -> History:
    """Read the validation metrics of the epochs that a run in ``out`` has finished, if there is one.

    Raises:
        PlanError: another job or plan has written there; says which keys differ.
        ModelError: the checkpoint is damaged.
    """
    path = out / LAST_NAME
    if not path.exists():
        return ()
    description, _ = read_description(path)
    ours, theirs = job.identity(), description.job
    keys = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
    if keys:
        shown = "; ".join(f"{key} was {theirs.get(key)!r} and is {ours.get(key)!r}" for key in keys[:5])
        raise PlanError(f"{out}: wanted a new folder or one of the same job, got one where {shown}; "
                        "choose another --out, or delete it")  # fmt: skip
    return description.history


def choose_device(job: Classify) -> torch.device:
    """Choose where the model learns.

    Raises:
        ModelError: CUDA is asked for and there is none.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device: wanted cuda, got a machine without it; write device: auto or cpu")
    wanted = job.device if job.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


@dataclass(frozen=True)
class Run:
    """A model, its optimiser and what they belong to."""

    job: Classify
    context: Context
    device: torch.device
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    objective: Objective
    description: Description
    num_rows: int

    @classmethod
    def prepare(
        cls, job: Classify, index: Index, context: Context, device: torch.device, history: History
    ) -> Run:
        """Build the model, or load it as the last finished epoch left it."""
        torch.manual_seed(torch_seed(job, "init", 0))
        model = build_model(job.model, num_classes=len(index.classes))
        if job.fine_tune_from == "all":
            model.requires_grad_(True)
        else:
            freeze_before(model, job.fine_tune_from)
        model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = job.optimizer.build(*learning_parameters(model))
        last = context.out / LAST_NAME
        if history:
            load_weights(last, model)
            load_optimizer(last, optimizer)
        rows = index.rows(job.train_split)
        labels = index.table["label"].to_numpy()[rows]
        weights = balanced_weights(labels, len(index.classes)) if job.class_weights == "balanced" else None
        objective = Objective(None if weights is None else weights.to(device), job.label_smoothing)
        spec = job.model.model_copy(update={"num_classes": len(index.classes)})
        description = Description(spec, index.classes, job.plan.fingerprint(), job.identity(), history)
        return cls(job, context, device, model, optimizer, objective, description, len(rows))

    def learn(self, feed: Feed) -> History:
        """Learn the epochs that are left; every finished one is on disk before the next begins."""
        history = self.description.history
        journal = Journal(self.context.out / METRICS_NAME)
        journal.keep_before(len(history))
        lessons = self._lessons(feed)
        for epoch, batches in lessons.epochs(range(len(history), self.job.epochs)):
            torch.manual_seed(torch_seed(self.job, "epoch", epoch))
            train_mode(self.model)
            trained = train_epoch(
                lessons.module,
                batches,
                self.optimizer,
                self.objective,
                factor=self._factor(epoch),
                num_classes=len(self.description.classes),
            )
            measured = evaluate(lessons.module, lessons.validation())
            history = (*history, measured.as_dict())
            self._keep(epoch, trained, measured, journal, history)
            if is_done(self.job, history):
                break
        return history

    def finish(self, history: History) -> Mapping[str, Any]:
        """Measure the test split with the best weights and write the result."""
        best = best_epoch(history, self.job.best_by)
        path = self.context.out / BEST_NAME
        result: dict[str, Any] = {
            "best_epoch": best,
            "epochs": len(history),
            "validation": dict(history[best]),
            "test": None,
            "checkpoint": str(path),
        }
        if self.job.test_split is not None:
            load_weights(path, self.model)
            batches = split_batches(self.context, self.job.plan, self.job.test_split, self.device)
            outcome = evaluate(self.model, batches)
            result["test"] = {**outcome.as_dict(), "confusion": outcome.metrics.confusion.tolist()}
            self.context.console.say(f"test, weights of epoch {best + 1}: {in_words(outcome)}")
        write_aside(self.context.out / RESULT_NAME, json.dumps(result, indent=2, allow_nan=False) + "\n")
        return result

    def _lessons(self, feed: Feed) -> Lessons:
        job, split = self.job, self.job.validation_split
        if job.feature_passes is None:
            return ImageLessons(self.model, job.plan, split, feed, self.context, self.device)
        return FeatureLessons.collect(self.model, job.plan, split, feed, self.context, self.device)

    def _factor(self, epoch: int) -> Callable[[int], float]:
        job = self.job
        steps = num_steps(self.num_rows, job.plan.batch.size, drop_last=job.drops_last(self.num_rows))
        return lambda step: job.schedule.factor(epoch + (step + 0.5) / steps, job.epochs)

    def _keep(
        self, epoch: int, trained: Outcome, measured: Outcome, journal: Journal, history: History
    ) -> None:
        """Write down a finished epoch; the last checkpoint comes last, as it says that the epoch is done."""
        job, out = self.job, self.context.out
        rate = max(group["lr"] for group in self.optimizer.param_groups)
        for split, outcome in ((job.train_split, trained), (job.validation_split, measured)):
            journal.append({"epoch": epoch, "split": split, **outcome.as_dict(), "lr": rate})
        description = replace(self.description, history=history)
        if best_epoch(history, job.best_by) == epoch:
            save_checkpoint(out / BEST_NAME, self.model, description)
        save_checkpoint(out / LAST_NAME, self.model, description, self.optimizer)
        pace = trained.as_dict()["images_per_s"]
        self.context.console.say(
            f"epoch {epoch + 1}/{job.epochs}: train loss {trained.loss:.4f}, {job.validation_split} "
            f"{in_words(measured)}, lr {rate:.2g}, {pace:.0f} images/s"
        )


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
    """Split what learns into the head's parameters and the trunk's."""
    head = {id(parameter) for parameter in head_module(model)[1].parameters()}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [p for p in learning if id(p) in head], [p for p in learning if id(p) not in head]


def balanced_weights(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Weigh each class by images / (classes * images of the class): float32, shape (classes,)."""
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return torch.from_numpy(counts.sum() / (num_classes * counts)).float()


def torch_seed(job: Classify, purpose: str, epoch: int) -> int:
    """Key torch's generator by (plan seed, epoch): new heads and dropout are functions of them alone."""
    return keyed_bits(f"torch {purpose}", job.plan.seed, epoch, "") & (2**63 - 1)
