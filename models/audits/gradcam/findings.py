"""Findings of an audit: descriptive statistics, written to ``findings.json``."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ....pipeline.atomic_io import write_json
from ...training.metrics import accuracies, area_under_roc, log_odds
from ..findings.intervals import wilson
from .gallery import class_name
from .records import Predictions, column, read_predictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FINDINGS_VERSION = 4
"""Of ``findings.schema.json``, which describes every key."""
NUM_BINS = 10
"""Number of confidence bins of the calibration."""
MAX_BOX_COVERAGE = 0.5
"""Images whose boxes cover more than this fraction are excluded from the pointing game as too easy."""
MAX_CONFUSION = 100
"""With more classes the confusion matrix is omitted; it can be computed from records.parquet."""


def compute_findings(records: pa.Table, names: Sequence[str], num_index: int | None = None) -> dict[str, Any]:
    """Compute the findings of an audit from its records; a value that cannot be computed is None.

    Args:
        records: records of the audit.
        names: names of all classes by number, those of the index first.
        num_index: number of classes of the index; None for all.
    """
    preds = read_predictions(records)
    num_index = len(names) if num_index is None else num_index
    num_classes = max(num_index or len(names), int(preds.labels.max(initial=-1)) + 1)
    confusion = confusion_matrix(preds, num_classes)
    num_all = max(len(names), num_classes, int(preds.predictions.max(initial=-1)) + 1)
    accuracy, balanced_accuracy = accuracies(confusion)
    num_right, num_labelled = int(preds.right.sum()), int(preds.labelled.sum())
    return {
        "findings_version": FINDINGS_VERSION,
        "num_images": len(preds.keys),
        "num_labelled": num_labelled,
        "num_unknown_class": int((preds.labels >= 0).sum()) - num_labelled,
        "num_classes": num_classes,
        "classes": list(names[:num_classes]),
        "accuracy": accuracy,
        "accuracy_interval": wilson(num_right, num_labelled),
        "top5_accuracy": top5_accuracy(records, preds),
        "balanced_accuracy": balanced_accuracy,
        "auroc": auroc(records, preds),
        "calibration": calibration(preds),
        "confidence": mean_by_correctness(preds.confidences, preds),
        "border_mass": mean_by_correctness(preds.border_mass, preds),
        "concentration": mean_by_correctness(preds.concentration, preds),
        "blank_maps": {
            "predicted": sum(map(bool, records["blank"].to_pylist())),
            "true": sum(map(bool, records["blank_true"].to_pylist())),
        },
        "num_without_map": sum(map(bool, records["no_map"].to_pylist())),
        "pointing_game": pointing_game(records),
        "per_class": per_class_findings(preds, num_all, names),
        "confusion": confusion.tolist() if num_classes <= MAX_CONFUSION else None,
        "most_confused": most_confused(preds, names),
    }


def calibration(preds: Predictions) -> dict[str, Any] | None:
    """Compute the reliability diagram with bins of equal width, and its ECE; None without labelled images.

    ``ece`` is the expected calibration error (Naeini et al., AAAI 2015): the mean absolute difference of accuracy and
    confidence, weighted by images.
    """
    confidences = preds.confidences[preds.labelled].astype(np.float64)
    right = preds.right[preds.labelled]
    if not len(right):
        return None
    bin_index = np.minimum((confidences * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = [
        {
            "from": number / NUM_BINS,
            "to": (number + 1) / NUM_BINS,
            "num_images": int(chosen.sum()),
            "confidence": float(confidences[chosen].mean()),
            "accuracy": float(right[chosen].mean()),
        }
        for number in range(NUM_BINS)
        if (chosen := bin_index == number).any()
    ]
    ece = sum(each["num_images"] * abs(each["confidence"] - each["accuracy"]) for each in bins) / len(right)
    return {"ece": ece, "bins": bins}


def fraction_true(flags: NDArray[np.bool_]) -> float | None:
    """Return the fraction of True; None if empty."""
    return float(flags.mean()) if len(flags) else None


def mean(values: NDArray[np.floating[Any]]) -> float | None:
    """Return the mean without NaN; None if there are no values."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else None


def mean_by_correctness(values: NDArray[np.float32], preds: Predictions) -> dict[str, float | None]:
    """Average a column over all, correct and wrong rows, with the difference wrong - correct."""
    right, wrong = mean(values[preds.right]), mean(values[preds.wrong])
    difference = None if right is None or wrong is None else wrong - right
    return {"mean": mean(values), "right": right, "wrong": wrong, "difference": difference}


def confusion_matrix(preds: Predictions, num_classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix: counts by label (rows) and prediction (columns).

    Predictions of classes that are not in the index are counted in an additional last column, if there are any.
    """
    labels, predictions = preds.labels[preds.labelled], preds.predictions[preds.labelled]
    folded = np.minimum(predictions, num_classes)
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    np.add.at(counts, (labels, folded), 1)
    return counts if counts[:, -1].any() else counts[:, :-1]


def per_class_findings(preds: Predictions, num_classes: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return counts, recall, precision and map statistics of every class with a label or a prediction."""
    entries = []
    for number in range(num_classes):
        own, predicted_as = preds.labels == number, preds.predictions == number
        if own.any() or predicted_as.any():
            entries.append(
                {
                    "class": class_name(number, classes),
                    "number": number,
                    "num_images": int(own.sum()),
                    "num_predicted": int(predicted_as.sum()),
                    "num_known": int((own & preds.labelled).sum()),
                    "recall": fraction_true(preds.right[own & preds.labelled]),
                    "recall_interval": wilson(int(preds.right[own].sum()), int((own & preds.labelled).sum())),
                    "precision": fraction_true(preds.right[predicted_as & preds.labelled]),
                    "border_mass": mean(preds.border_mass[predicted_as]),
                    "concentration": mean(preds.concentration[predicted_as]),
                }
            )
    return entries


def most_confused(preds: Predictions, classes: Sequence[str], num: int = 12) -> list[dict[str, Any]]:
    """List the most frequent pairs of label and wrong prediction."""
    pairs = zip(preds.labels[preds.wrong].tolist(), preds.predictions[preds.wrong].tolist(), strict=True)
    counted = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [
        {"label": class_name(label, classes), "prediction": class_name(guess, classes), "count": count}
        for (label, guess), count in counted[:num]
    ]


def top5_accuracy(records: pa.Table, preds: Predictions) -> float | None:
    """Return the top-5 accuracy; None up to five classes."""
    best = records["top5"].to_pylist()
    if not best or len(best[0]) < 5 or (int(preds.labels.max(initial=-1)) < 5 and max(map(max, best)) < 5):
        return None
    within = [label in five for label, five in zip(preds.labels.tolist(), best, strict=True)]
    return fraction_true(np.asarray(within)[preds.labelled])


def auroc(records: pa.Table, preds: Predictions) -> float | None:
    """Return the area under the ROC curve: of the second of two classes; with more, macro-averaged one-vs-rest.

    It is computed from the logits; None if the records have none, or fewer than two classes have images.
    """
    rows = np.flatnonzero(preds.labelled)
    if not len(rows) or records["logits"].null_count:
        return None
    logits = np.asarray(records["logits"].take(pa.array(rows)).to_pylist(), dtype=np.float64)
    stated = json.loads(records["model"][0].as_py() or "{}").get("outputs") or range(logits.shape[1])
    outputs = dict(enumerate(stated))
    labels = preds.labels[rows]
    if any(label not in outputs for label in set(labels.tolist())):
        return None
    return area_under_roc(log_odds(logits), np.asarray([outputs[label] for label in labels.tolist()]))[0]


def pointing_game(records: pa.Table) -> dict[str, Any] | None:
    """Compute the pointing game (Zhang et al., ECCV 2016) with the labelled class's map; None without boxes.

    Images whose boxes cover more than half of them are excluded. The tolerance is 0 px, and an empty map is a miss.
    ``centre_rate`` is the baseline: the hit rate of a map with its peak at the image centre.
    """
    cover = column(records, "box_cover")
    played = np.flatnonzero(np.nan_to_num(cover, nan=np.inf) <= MAX_BOX_COVERAGE)
    rows = records.take(played)
    hits = [hit for hit in rows["hit"].to_pylist() if hit is not None]
    if not hits:
        return None
    centres = [
        bool(c)
        for c, hit in zip(rows["centre_hit"].to_pylist(), rows["hit"].to_pylist(), strict=True)
        if hit is not None
    ]
    return {
        "num_images": len(hits),
        "hits": sum(hits),
        "hit_rate": sum(hits) / len(hits),
        "centre_rate": sum(centres) / len(centres),
        "num_blank": sum(map(bool, rows["blank_true"].to_pylist())),
        "tolerance_px": 0,
        "rule": "peak of the labelled class's map in any box; images whose boxes cover at most half",
    }


def write_findings(findings: Mapping[str, Any], path: Path) -> None:
    """Write findings as JSON, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(path, findings)
