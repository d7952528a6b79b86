"""Classification metrics: accuracy, balanced accuracy, area under the ROC curve, confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metrics:
    """Metrics of a split. A value that cannot be computed is None, with the reason in ``notes``."""

    num_images: int
    """Evaluated images, without replaced and unlabelled ones."""
    num_ignored: int
    accuracy: float | None
    balanced_accuracy: float | None
    """Mean recall of the classes that occur."""
    auroc: float | None
    """Two classes: of the probability of class 1. More: macro-averaged one-vs-rest over the classes that occur."""
    confusion: np.ndarray
    """int64, shape (classes, classes); rows are true classes, columns predicted ones."""
    notes: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types, without the confusion matrix."""
        plain: dict[str, Any] = {
            "images": self.num_images,
            "ignored": self.num_ignored,
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "auroc": self.auroc,
        }
        return {**plain, "notes": dict(self.notes)} if self.notes else plain

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return none: the class with the highest score is predicted."""
        return ()

    def details(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:  # noqa: ARG002
        """Return the confusion matrix."""
        return {"confusion": self.confusion.tolist()}


def log_odds(logits: np.ndarray) -> np.ndarray:
    """Return the log-odds of each class against the others, float64, shape (N, classes).

    They rank images as softmax probabilities do, but do not saturate where probabilities round to the same value.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[1] < 2 or not len(logits):
        return logits
    rows, best = np.arange(len(logits)), logits.argmax(axis=1)
    others = logits.copy()
    others[rows, best] = -np.inf
    with np.errstate(under="ignore"):
        log_probabilities = logits - _log_sum_exp(logits)[:, None]
        smaller = np.minimum(log_probabilities, np.log(0.5))  # only the best class has more than a half
        odds = log_probabilities - np.log1p(-np.exp(smaller))
        odds[rows, best] = logits[rows, best] - _log_sum_exp(others)
    return np.asarray(odds)


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    most = logits.max(axis=1)
    return np.asarray(most + np.log(np.exp(logits - most[:, None]).sum(axis=1)))


def compute_metrics(
    probabilities: np.ndarray, labels: np.ndarray, ignored: np.ndarray | None = None
) -> Metrics:
    """Compute the metrics of predicted probabilities or ``log_odds``.

    Args:
        probabilities: float, shape (N, classes); only the rank order within each column matters for the AUROC.
        labels: integers, shape (N,); -1 for unlabelled rows, which are excluded.
        ignored: bool, shape (N,); rows to exclude.
    """
    from sklearn.metrics import confusion_matrix

    num_classes = probabilities.shape[1]
    counted = labels >= 0 if ignored is None else (labels >= 0) & ~ignored
    scores, truth = probabilities[counted], labels[counted]
    num_ignored = int(len(labels) - len(truth))
    if not len(truth):
        note = "no labelled image is left"
        empty = np.zeros((num_classes, num_classes), dtype=np.int64)
        return Metrics(0, num_ignored, None, None, None, empty, dict.fromkeys(METRIC_NAMES, note))
    confusion = np.asarray(
        confusion_matrix(truth, scores.argmax(axis=1), labels=range(num_classes)), dtype=np.int64
    )
    accuracy, balanced = accuracies(confusion)
    auroc, note = area_under_roc(scores, truth)
    return Metrics(
        len(truth), num_ignored, accuracy, balanced, auroc, confusion, {"auroc": note} if note else {}
    )


METRIC_NAMES = ("accuracy", "balanced_accuracy", "auroc")


def accuracies(confusion: np.ndarray) -> tuple[float | None, float | None]:
    """Return accuracy and balanced accuracy of a confusion matrix; None for an empty one."""
    per_class = confusion.sum(axis=1)
    present = per_class > 0
    if not present.any():
        return None, None
    hits = np.diag(confusion)
    return float(hits.sum() / per_class.sum()), float((hits[present] / per_class[present]).mean())


def area_under_roc(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float | None, str]:
    """Return the area under the ROC curve and an empty string, or None and the reason.

    Two classes: of the probability of class 1. More: macro-averaged one-vs-rest over the classes that occur.
    """
    from sklearn.metrics import roc_auc_score

    present = np.unique(labels)
    if len(present) < 2:
        return None, f"only class {int(present[0])} is present" if len(present) else "no labelled image"
    if not np.isfinite(probabilities).all():
        return None, "some scores are not finite"
    positives = [1] if probabilities.shape[1] == 2 else present
    areas = [roc_auc_score(labels == c, probabilities[:, c]) for c in positives]
    return float(np.mean(areas)), ""
