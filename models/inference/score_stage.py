"""Stage that scores every image of a job's view: logits of a classifier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ...pipeline.jobs.stages import SINGLE_STAGE, Batches, Inputs, Process, Source

if TYPE_CHECKING:
    from ...pipeline.batch.batch import Batch
    from .config import ScoringJob

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int64()),
        ("labels", pa.list_(pa.int64())),
        ("logits", pa.list_(pa.float32())),
    ]
)
"""Logits of one view of an image; those of a flip are averaged. ``label`` is the number of the index, or -1; ``labels`` are
those of an image with several, null without."""


@dataclass(frozen=True)
class ScoreStage:
    """Scores the images of a job's view."""

    job: ScoringJob

    name = SINGLE_STAGE
    needs = ()
    schema = SCORES

    def fingerprint(self) -> str:
        """Hash everything that determines the records."""
        return self.job.fingerprint()

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the batches of the job's view."""
        return Batches(self.job.plan, self.job.view)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Load the model; yields a function that scores a batch.

        Raises:
            ModelError: the checkpoint cannot be used, or there is no such device.
        """
        from .scoring import Scorer

        job = self.job
        scorer = Scorer.load(job.checkpoint, device=job.device, flip=job.tta == "flip")

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
    return pa.record_batch(columns, schema=SCORES)


def label_numbers(label_sets: np.ndarray | None, row: int) -> list[int] | None:
    """Return the labels of an image with several; None without."""
    if label_sets is None or (label_sets[row] < 0).any():
        return None
    return [int(number) for number in np.flatnonzero(label_sets[row] == 1)]
