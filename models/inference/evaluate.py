"""Batch job that evaluates a checkpoint on a labelled split: metrics with intervals, calibration and errors by class.

A job file::

    job: evaluate
    plan: plan.yaml
    checkpoint: train/best.safetensors
    split: test
    tta: flip                       # or a number of augmented views; default: none

Its scores are those of the job ``predict``, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from ...pipeline.errors import PlanError, RunError
from ...pipeline.text import first_few
from .config import ScoringJob

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.jobs.contracts import Context
    from ..training.metrics import Metrics
    from .table import ScoreTable

RESULT_NAME = "evaluation.json"
CONFUSION_NAME = "confusion.png"
RELIABILITY_NAME = "reliability.png"
RESULT_VERSION = 1


class Evaluate(ScoringJob):
    """Evaluate a checkpoint on a split; write evaluation.json, predictions and figures."""

    split: str | None = "test"
    """None evaluates all images."""
    bootstrap: int = Field(default=1000, ge=0, le=100_000)
    """Bootstrap samples of the intervals; 0 for none."""
    seed: int = Field(default=0, ge=0)
    """Of the bootstrap."""

    def fingerprint(self) -> str:
        """Hash what determines the logits; see ``ScoringJob``.

        Raises:
            ModelError: the checkpoint is not that of a classifier with one class per image.
        """
        from .outputs import ONE_CLASS, read_classifier

        read_classifier(self.checkpoint, (ONE_CLASS,))
        return super().fingerprint()

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output files."""
        from .table import CSV_NAME, PARQUET_NAME

        return (RESULT_NAME, PARQUET_NAME, CSV_NAME, CONFUSION_NAME, RELIABILITY_NAME)

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write metrics, predictions and figures; return the metrics.

        Raises:
            RunError: no labelled image could be used.
            PlanError: the index has none of the checkpoint's classes.
            OutputError: a file cannot be written.
        """
        from ...pipeline.atomic_io import write_json
        from ..report.figures import write_confusion, write_reliability
        from ..training.metrics import compute_metrics, log_odds
        from .outputs import read_classifier
        from .table import ScoreTable

        metadata = read_classifier(self.checkpoint)
        table = ScoreTable.of(self, records, metadata, context.quarantine)
        labels, notes = match_labels(table.labels, self.plan.load_index().classes, metadata.classes)
        if not (labels >= 0).any():
            raise RunError(
                f"evaluate: expected labelled images in {self.split or 'the index'!r} that can be read, got none; "
                "see quarantine.jsonl, or use `lightwell predict` for images without labels"
            )
        table.write(context.out)
        metrics = compute_metrics(log_odds(table.logits), labels)
        result = self._result(table, labels, metrics, notes)
        write_confusion(context.out / CONFUSION_NAME, metrics.confusion, table.outputs.classes)
        diagrams = {"as evaluated": result["calibration"]}
        if table.outputs.temperature != 1:
            diagrams = {
                "without temperature": result["calibration_without_temperature"],
                f"temperature {table.outputs.temperature:.3g}": result["calibration"],
            }
        write_reliability(context.out / RELIABILITY_NAME, diagrams)
        write_json(context.out / RESULT_NAME, result)
        return result

    def _result(
        self, table: ScoreTable, labels: np.ndarray, metrics: Metrics, notes: Sequence[str]
    ) -> dict[str, Any]:
        from ..training.calibration import compute_calibration
        from ..training.metrics import log_odds
        from ..training.per_class import per_class_table
        from .bootstrap import bootstrap_intervals
        from .outputs import softmax

        calibrated = compute_calibration(table.probabilities, labels)
        plain = compute_calibration(softmax(table.logits), labels)
        assert calibrated is not None
        assert plain is not None
        return {
            "version": RESULT_VERSION,
            "split": self.split,
            "tta": self.tta,
            "loss": cross_entropy(table.logits, labels),
            **metrics.as_dict(),
            "unusable": len(table.failed),
            "intervals": bootstrap_intervals(
                log_odds(table.logits), labels, num_samples=self.bootstrap, seed=self.seed
            ),
            "bootstrap": {"samples": self.bootstrap, "seed": self.seed, "level": 0.95},
            "per_class": per_class_table(metrics.confusion, table.outputs.classes),
            "confusion": metrics.confusion.tolist(),
            "temperature": table.outputs.temperature,
            "calibration": calibrated.as_dict(),
            "calibration_without_temperature": plain.as_dict(),
            "warnings": [*notes],
        }


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy of labelled rows, in float64."""
    scores = logits[labels >= 0].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(scores)), labels[labels >= 0]]
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - own))


def match_labels(
    labels: np.ndarray, index_classes: Sequence[str], classes: Sequence[str]
) -> tuple[np.ndarray, list[str]]:
    """Translate labels of an index to outputs of a checkpoint by name; returns them and notes on the differences.

    Raises:
        PlanError: no class of the index is one of the checkpoint.
    """
    outputs = {name: number for number, name in enumerate(classes)}
    unknown = [name for name in index_classes if name not in outputs]
    if len(unknown) == len(index_classes):
        raise PlanError(
            f"classes: expected some of the checkpoint's ({first_few([*map(repr, classes)])}), got "
            f"{first_few([*map(repr, index_classes)]) or 'no labels'}; label the images with these names, or use "
            "`lightwell predict` for images without labels"
        )
    numbers = np.asarray([*(outputs.get(name, -1) for name in index_classes), -1], dtype=np.int64)
    notes = []
    if unknown:
        left_out = int(np.isin(labels, [index_classes.index(name) for name in unknown]).sum())
        notes.append(
            f"{left_out:,} images of {first_few([*map(repr, unknown)], 5)} are not evaluated: no such output"
        )
    return numbers[labels], notes
