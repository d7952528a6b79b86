"""Resuming a training run: finished epochs, and progress within the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...pipeline.errors import ModelError, PlanError
from ...pipeline.jobs.contracts import ResumePoint
from ...pipeline.plan.view import View
from ...pipeline.sampler.position import make_position, view_fields
from ..zoo.load_checkpoint import is_path
from .checkpoint import LAST_NAME, Progress, read_metadata, read_progress
from .spec import TrainSpec

History = tuple[Mapping[str, Any], ...]
ELAPSED = "elapsed_s"
"""Time of training and validation up to an epoch, in its row of the history; only with a time budget."""


@dataclass(frozen=True)
class ResumeState:
    """State that an earlier run left in the output folder."""

    history: History = ()
    """Validation metrics of the finished epochs."""
    progress: Progress | None = None
    """None if there is no checkpoint yet."""

    def resume_point(self, spec: TrainSpec, view: View) -> ResumePoint:
        """Return the rest of a view of all epochs; the view may be longer than that of the earlier run."""
        if self.progress is None or self.progress.position is None:
            return ResumePoint(view)
        position = {**self.progress.position, "view": view_fields(view)}
        if is_done(spec, self.history):
            position |= {"epoch": view.first_epoch + view.num_epochs, "step": 0}
        return ResumePoint(view, position, self.progress.counts)

    def check_position(self, num_steps: int) -> None:
        """Check that the feed position in the checkpoint matches the training progress.

        Args:
            num_steps: steps per epoch.

        Raises:
            ModelError: they differ.
        """
        if self.progress is None or self.progress.position is None:
            return
        expected = view_position(len(self.history), self.progress.step, num_steps)
        actual = {name: self.progress.position.get(name) for name in expected}
        if actual != expected or self.progress.step > num_steps:
            raise ModelError(
                f"checkpoint: expected a position at step {self.progress.step} of {num_steps} of epoch {len(self.history)}, got "
                f"{actual} in {LAST_NAME}; restore it from a copy, or delete it and train again"
            )


def view_position(epoch: int, step: int, num_steps: int) -> dict[str, int]:
    """Return epoch and step of the next batch, after ``step`` steps of an epoch."""
    return {"epoch": epoch + step // num_steps, "step": step % num_steps}


def read_resume_state(spec: TrainSpec, view: View, out: Path) -> ResumeState:
    """Read the state that a run of the same job left in ``out``.

    Raises:
        PlanError: the folder holds a run of another job or plan; the message lists the keys that differ.
        ModelError: the checkpoint is damaged.
    """
    path = out / LAST_NAME
    if not path.exists():
        return ResumeState()
    metadata, header = read_metadata(path)
    current, saved = spec.result_config(), metadata.job
    keys = [key for key in sorted({*current, *saved}) if not _same(key, current.get(key), saved.get(key))]
    if keys:
        shown = "; ".join(f"{key} was {saved.get(key)!r} and is {current.get(key)!r}" for key in keys[:5])
        raise PlanError(f"{out}: expected a new folder or one of the same job, got one where {shown}; "
                        "choose another --out, or delete it")  # fmt: skip
    expected = spec.task_of(spec.plan.load_index()).running_metrics().sums
    progress = read_progress(path, header, expected)
    if header["format_version"] == "1":
        plan = spec.plan.fingerprint(spec.plan.load_index())
        position = make_position(view, plan=plan, epoch=len(metadata.history), step=0)
        progress = replace(progress, position=position)
    return ResumeState(metadata.history, progress)


def is_done(spec: TrainSpec, history: History) -> bool:
    """Return whether training is complete: all epochs are done, the time budget is spent, or it stopped early."""
    if spec.time_budget is not None and history and history[-1].get(ELAPSED, 0.0) >= spec.time_budget:
        return True
    return len(history) >= spec.epochs or (
        spec.early_stop is not None and spec.early_stop.is_reached(history)
    )


def _same(key: str, current: Any, saved: Any) -> bool:
    """Compare the values of a key; older checkpoints store the path of the weights instead of name and digest."""
    if key == "model.weights" and isinstance(saved, str) and " sha256 " not in saved and is_path(saved):
        return str(current).partition(" sha256 ")[0] == Path(saved).name
    return bool(current == saved)
