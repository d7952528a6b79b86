"""Where a run stands: the epochs it has finished, and the step within the next."""

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
from .spec import ClassifySpec

History = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class ResumeState:
    """What a run left in its folder."""

    history: History = ()
    """Validation metrics of the finished epochs."""
    progress: Progress | None = None
    """None where nothing was written yet, so that a model is still to be made."""

    def resume_point(self, spec: ClassifySpec, view: View) -> ResumePoint:
        """Say what is left of a view of all epochs. A longer view than the run had is gone on with."""
        if self.progress is None or self.progress.position is None:
            return ResumePoint(view)
        position = {**self.progress.position, "view": view_fields(view)}
        if is_done(spec, self.history):
            position |= {"epoch": view.first_epoch + view.num_epochs, "step": 0}
        elif spec.feature_passes is not None:
            return ResumePoint(view)  # cached features are made again, and counted again
        return ResumePoint(view, position, self.progress.counts)

    def check_position(self, num_steps: int) -> None:
        """Check that the feed goes on where the learning does.

        Args:
            num_steps: of an epoch.

        Raises:
            ModelError: the checkpoint names two places.
        """
        if self.progress is None or self.progress.position is None:
            return
        wanted = view_position(len(self.history), self.progress.step, num_steps)
        got = {name: self.progress.position.get(name) for name in wanted}
        if got != wanted or self.progress.step > num_steps:
            raise ModelError(
                f"checkpoint: expected a position at step {self.progress.step} of {num_steps} of epoch {len(self.history)}, got "
                f"{got} in {LAST_NAME}; take it from a copy, or delete it and train again"
            )


def view_position(epoch: int, step: int, num_steps: int) -> dict[str, int]:
    """Return epoch and step of the next batch behind so many steps of an epoch."""
    return {"epoch": epoch + step // num_steps, "step": step % num_steps}


def read_resume_state(spec: ClassifySpec, view: View, out: Path) -> ResumeState:
    """Read what a run of the same job left in ``out``.

    Raises:
        PlanError: another job or plan has written there; says which keys differ.
        ModelError: the checkpoint is damaged.
    """
    path = out / LAST_NAME
    if not path.exists():
        return ResumeState()
    metadata, header = read_metadata(path)
    ours, theirs = spec.result_config(), metadata.job
    keys = [key for key in sorted({*ours, *theirs}) if not _same(key, ours.get(key), theirs.get(key))]
    if keys:
        shown = "; ".join(f"{key} was {theirs.get(key)!r} and is {ours.get(key)!r}" for key in keys[:5])
        raise PlanError(f"{out}: expected a new folder or one of the same job, got one where {shown}; "
                        "choose another --out, or delete it")  # fmt: skip
    progress = read_progress(path, header)
    if header["format_version"] == "1" and spec.feature_passes is None:
        plan = spec.plan.fingerprint(spec.plan.load_index())
        position = make_position(view, plan=plan, epoch=len(metadata.history), step=0)
        progress = replace(progress, position=position)
    return ResumeState(metadata.history, progress)


def is_done(spec: ClassifySpec, history: History) -> bool:
    """Say whether nothing is left to learn."""
    return len(history) >= spec.epochs or (
        spec.early_stop is not None and spec.early_stop.is_reached(history)
    )


def _same(key: str, ours: Any, theirs: Any) -> bool:
    """Compare the values of a key; older checkpoints have the path of the weights in place of name and content."""
    if key == "model.weights" and isinstance(theirs, str) and " sha256 " not in theirs and is_path(theirs):
        return str(ours).partition(" sha256 ")[0] == Path(theirs).name
    return bool(ours == theirs)
