"""Evaluation of one class per image: accuracy, AUROC, calibration and errors by class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...report.figures import write_confusion, write_reliability
from ...training.calibration import compute_calibration
from ...training.metrics import compute_metrics, log_odds
from ...training.per_class import per_class_table
from ..outputs import softmax
from ..table import ScoreTable
from .bootstrap import bootstrap_intervals

CONFUSION_NAME = "confusion.png"
RELIABILITY_NAME = "reliability.png"


def one_class_result(table: ScoreTable, labels: np.ndarray, *, num_samples: int, seed: int) -> dict[str, Any]:
    """Return the metrics as JSON types.

    Args:
        table: scores of the split.
        labels: int64, shape (N,): classes of the checkpoint, -1 for none; at least one image has one.
        num_samples: bootstrap samples of the intervals.
        seed: of the bootstrap.
    """
    metrics = compute_metrics(log_odds(table.logits), labels)
    calibrated = compute_calibration(table.probabilities, labels)
    plain = compute_calibration(softmax(table.logits), labels)
    assert calibrated is not None
    assert plain is not None
    return {
        "loss": cross_entropy(table.logits, labels),
        **metrics.as_dict(),
        "intervals": bootstrap_intervals(log_odds(table.logits), labels, num_samples=num_samples, seed=seed),
        "per_class": per_class_table(metrics.confusion, table.outputs.classes),
        "confusion": metrics.confusion.tolist(),
        "temperature": table.outputs.temperature,
        "calibration": calibrated.as_dict(),
        "calibration_without_temperature": plain.as_dict(),
    }


def write_one_class_figures(folder: Path, table: ScoreTable, result: dict[str, Any]) -> None:
    """Write the confusion matrix and the reliability diagram.

    Raises:
        OutputError: a file cannot be written.
    """
    write_confusion(folder / CONFUSION_NAME, np.asarray(result["confusion"]), table.outputs.classes)
    diagrams = {"as evaluated": result["calibration"]}
    if table.outputs.temperature != 1:
        diagrams = {
            "without temperature": result["calibration_without_temperature"],
            f"temperature {table.outputs.temperature:.3g}": result["calibration"],
        }
    write_reliability(folder / RELIABILITY_NAME, diagrams)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean cross-entropy of labelled rows, in float64."""
    scores = logits[labels >= 0].astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(scores)), labels[labels >= 0]]
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - own))
