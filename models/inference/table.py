"""Scores of all images of a job as one table, and the files of predictions."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...pipeline.atomic_io import atomic_write, write_text
from ..training.checkpoint import CheckpointMetadata
from .outputs import SEPARATOR, Outputs

if TYPE_CHECKING:
    from .config import ScoringJob

PARQUET_NAME = "predictions.parquet"
CSV_NAME = "predictions.csv"
SCORES_NAME = "records.parquet"
"""Of what the stage returned: labels and logits."""


@dataclass(frozen=True)
class ScoreTable:
    """Scores of every image that could be used, and the reasons for the others."""

    outputs: Outputs
    keys: tuple[str, ...]
    labels: np.ndarray
    """int64, shape (N,): labels of the index, -1 for none."""
    label_lists: tuple[tuple[int, ...] | None, ...]
    """Labels of images with several, as numbers of the index; None without."""
    logits: np.ndarray
    """float32, shape (N, classes); of several views those of the mean probabilities."""
    failed: Mapping[str, str]
    """Reason by key of the images that could not be used."""

    @classmethod
    def of(
        cls,
        job: ScoringJob,
        records: pa.Table,
        metadata: CheckpointMetadata,
        quarantine: Sequence[Mapping[str, Any]],
    ) -> ScoreTable:
        """Collect the records of a job, one row per image, in the order of the index."""
        values = records["logits"].combine_chunks()
        num_classes = len(metadata.classes)
        logits = np.array(values.flatten(), dtype=np.float32).reshape(-1, num_classes)
        keys = tuple(records["key"].to_pylist())
        labels = np.asarray(records["label"].to_pylist(), dtype=np.int64)
        lists = records["labels"].to_pylist()
        outputs = Outputs.of(metadata)
        if isinstance(job.tta, int) and job.tta > 1:
            keys, first, logits = _average_views(keys, logits, outputs)
            labels, lists = labels[first], [lists[row] for row in first]
        failed = reasons_of_failures(job, keys, quarantine)
        found = tuple(None if each is None else tuple(each) for each in lists)
        return cls(outputs, keys, labels, found, logits, failed)

    def label_sets(self, num_classes: int) -> np.ndarray:
        """Return the sets of labels: int8, shape (N, classes of the index), -1 in the rows of images without."""
        sets = np.zeros((len(self.keys), num_classes), np.int8)
        for row, numbers in enumerate(self.label_lists):
            sets[row, slice(None) if numbers is None else list(numbers)] = -1 if numbers is None else 1
        return sets

    @property
    def probabilities(self) -> np.ndarray:
        """float32, shape (N, classes)."""
        return self.outputs.probabilities(self.logits)

    @property
    def predicted(self) -> list[str]:
        """Predicted class of each image; several are joined by ``|``."""
        return [self.outputs.label(row) for row in self.probabilities]

    def summary(self) -> dict[str, Any]:
        """Return the numbers of images in all, used, unusable and by predicted class."""
        counts = Counter(name for label in self.predicted for name in label.split(SEPARATOR))
        return {
            "images": len(self.keys) + len(self.failed),
            "predicted": len(self.keys),
            "unusable": len(self.failed),
            "classes": {name: counts[name] for name in self.outputs.classes if counts[name]},
        }

    def write(self, folder: Path) -> None:
        """Write ``predictions.parquet`` and ``predictions.csv``; images that could not be used come last.

        Raises:
            OutputError: a file cannot be written.
        """
        probabilities = self.probabilities
        names = self.predicted
        most = probabilities.max(axis=1, initial=0)
        num_failed = len(self.failed)
        empty = [None] * num_failed
        keys = [*self.keys, *self.failed]
        reasons = [*([None] * len(names)), *self.failed.values()]
        offsets = np.arange(len(names) + 1, dtype=np.int64) * probabilities.shape[1]
        lists = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(probabilities.reshape(-1)))
        columns = {
            "key": pa.array(keys, pa.string()),
            "class": pa.array([*names, *empty], pa.string()),
            "probability": pa.array([*most.tolist(), *empty], pa.float32()),
            "probabilities": pa.concat_arrays([lists, pa.nulls(num_failed, lists.type)]),
            "error": pa.array(reasons, pa.string()),
        }
        table = pa.table(columns).replace_schema_metadata({"classes": json.dumps(self.outputs.classes)})
        with atomic_write(folder / PARQUET_NAME) as file:
            pq.write_table(table, file)
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(("key", "class", "probability", "error"))
        lines.writerows(
            (key, name, f"{value:.6g}", "")
            for key, name, value in zip(self.keys, names, most.tolist(), strict=True)
        )
        lines.writerows((key, "", "", reason) for key, reason in self.failed.items())
        write_text(folder / CSV_NAME, text.getvalue())


def reasons_of_failures(
    job: ScoringJob, keys: Sequence[str], quarantine: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return the reasons by key of the images that could not be used; ``keys`` are those that could."""
    used = set(keys)
    unusable = job.plan.load_index().unusable(job.split)
    failed = dict(zip(unusable["key"].to_pylist(), unusable["status"].to_pylist(), strict=True))
    return failed | {
        str(entry["key"]): f"{entry['step']}: {entry['reason']}"
        for entry in quarantine
        if entry["key"] not in used
    }


def _average_views(
    keys: tuple[str, ...], logits: np.ndarray, outputs: Outputs
) -> tuple[tuple[str, ...], list[int], np.ndarray]:
    """Average the views of each image; one that failed in some views has the others.

    Returns:
        Keys, a row of each image, and logits.
    """
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    averaged = [outputs.mean_logits([logits[[row]] for row in own])[0] for own in rows.values()]
    return tuple(rows), [own[0] for own in rows.values()], np.stack(averaged) if averaged else logits
