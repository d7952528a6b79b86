"""Keys of prediction and evaluation jobs, and the stage that both run: logits of every image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ...pipeline.config.checked_model import CheckedModel
from ...pipeline.jobs.fingerprint import file_digest, fingerprint_of
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..report.versions import versions

if TYPE_CHECKING:
    from ...pipeline.batch.batch import Batch

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

    schema: ClassVar[pa.Schema] = pa.schema(
        [
            ("key", pa.string()),
            ("label", pa.int64()),
            ("labels", pa.list_(pa.int64())),
            ("logits", pa.list_(pa.float32())),
        ]
    )
    """Logits of one view of an image; those of a flip are averaged. ``label`` is the number of the index, or -1; ``labels``
    are those of an image with several, null without."""

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
        """Hash what determines the logits: plan, weights, split, views and versions.

        Raises:
            ModelError: the checkpoint is not that of a classifier.
        """
        from .outputs import read_classifier

        read_classifier(self.checkpoint)
        index = self.plan.load_index()
        facts = [self.plan.fingerprint(index), file_digest(self.checkpoint), self.split, self.tta]
        return fingerprint_of([RECORDS_VERSION, *facts, index.classes, versions()])

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], pa.RecordBatch]]:
        """Load the model; yields a function that scores a batch.

        Raises:
            ModelError: the checkpoint cannot be used, or there is no such device.
        """
        from .scoring import Scorer

        scorer = Scorer.load(self.checkpoint, device=self.device, flip=self.tta == "flip")

        def process(batch: Batch) -> pa.RecordBatch:
            logits = scorer(batch.images, batch.keys)
            rows = np.flatnonzero(batch.is_valid)
            return score_records(batch, rows, logits[rows])

        yield process


def score_records(batch: Batch, rows: np.ndarray, logits: np.ndarray) -> pa.RecordBatch:
    """Return the records of some rows of a batch, given their logits."""
    offsets = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * logits.shape[1])
    sets = None if batch.label_sets is None else batch.label_sets.cpu().numpy()
    columns = [
        pa.array([batch.keys[row] for row in rows], pa.string()),
        pa.array(batch.labels.cpu().numpy()[rows], pa.int64()),
        pa.array([label_numbers(sets, row) for row in rows], pa.list_(pa.int64())),
        pa.ListArray.from_arrays(offsets, pa.array(logits.reshape(-1))),
    ]
    return pa.record_batch(columns, schema=ScoringJob.schema)


def label_numbers(label_sets: np.ndarray | None, row: int) -> list[int] | None:
    """Return the labels of an image with several; None without."""
    if label_sets is None or (label_sets[row] < 0).any():
        return None
    return [int(number) for number in np.flatnonzero(label_sets[row] == 1)]
