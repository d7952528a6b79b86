"""Keys of prediction and evaluation jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.errors import PlanError
from ...pipeline.jobs.fingerprint import file_digest, fingerprint_of
from ...pipeline.jobs.stages import Stage
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..report.versions import versions

RECORDS_VERSION = 2
MAX_VIEWS = 256


class ScoringJob(CheckedModel):
    """Data and checkpoint of a job that scores every image of a split."""

    plan: Plan
    checkpoint: Path
    """A checkpoint of ``lightwell train``."""
    split: str | None = None
    """None reads all images."""
    tta: Literal["none", "flip"] | Annotated[int, Field(ge=1, le=MAX_VIEWS)] = "none"
    """Test-time augmentation: ``flip`` averages the probabilities of each image and its mirror image, a number those of so
    many views that the plan's ``augment`` draws."""
    device: str = "auto"
    """torch device of the model; ``auto`` uses a GPU if available."""

    @model_validator(mode="after")
    def _check_views(self) -> Self:
        if isinstance(self.tta, int):
            plan = self.plan
            if not plan.augment:
                raise ValueError(
                    "tta: expected a plan with `augment` to draw views from, got one without; write tta: flip"
                )
            if plan.sampling is not None or plan.mix is not None or plan.progressive_size is not None:
                raise ValueError(
                    "tta: expected a plan without `sampling`, `mix` and `progressive_size`, which views of single images cannot "
                    "have; remove them"
                )
        return self

    evaluates: ClassVar[bool] = False
    """Whether the index's labels or masks are compared."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stage that scores images, or predicts their masks.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        from .masks.stage import MaskStage
        from .score_stage import ScoreStage

        return (MaskStage(self, self.evaluates),) if self.segments else (ScoreStage(self),)

    @property
    def segments(self) -> bool:
        """Whether the checkpoint is that of a segmentation network.

        Raises:
            ModelError: the file is no checkpoint, or one of another task.
        """
        from .outputs import SEGMENTATION, read_trained

        return read_trained(self.checkpoint).task == SEGMENTATION

    @property
    def view(self) -> View:
        """View of the split, in order: as in evaluation, or several times augmented."""
        if isinstance(self.tta, int):
            return View(split=self.split, augment=True, num_epochs=self.tta)
        return View(split=self.split)

    def plan_warnings(self) -> tuple[str, ...]:
        """Return warnings where the plan prepares images otherwise than the training did.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        from ..training.checkpoint import read_metadata
        from ..zoo.plan_checks import trained_plan_warnings

        return trained_plan_warnings(read_metadata(self.checkpoint)[0].job, self.plan)

    def fingerprint(self) -> str:
        """Hash what determines the records: plan, weights, split, views and versions.

        Raises:
            ModelError: the checkpoint cannot be used.
            PlanError: its task has no such views.
        """
        if self.segments and isinstance(self.tta, int):
            raise PlanError(
                f"tta: expected none or flip for segmentation, as pixels of augmented views lie elsewhere, got {self.tta}; write "
                "tta: flip"
            )
        index = self.plan.load_index()
        facts = [self.plan.fingerprint(index), file_digest(self.checkpoint), self.split, self.tta]
        return fingerprint_of([RECORDS_VERSION, *facts, index.classes, versions()])
