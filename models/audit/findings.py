"""The findings: plain descriptive figures of an audit, as they stand in ``findings.json``."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline.atomic_io import write_json
from ..metrics import area_under_roc, rates_of
from .gallery import class_name
from .records import Answers, answers, column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

FINDINGS_VERSION = 1
POINTING_COVER = 0.5
"""Images whose boxes cover more than this share are left out of the pointing game: anything would hit."""
MAX_CONFUSION = 100
"""With more classes the confusion matrix is left out; records.parquet holds what it is made from."""


def describe(records: pa.Table, classes: Sequence[str]) -> dict[str, Any]:
    """Compute the figures of an audit from its records; a figure that cannot be had is None."""
    taken = answers(records)
    num_classes = max(len(classes), int(taken.labels.max(initial=-1)) + 1)
    confusion = count_pairs(taken, num_classes)
    per_class = describe_classes(taken, num_classes, classes)
    accuracy, balanced_accuracy = rates_of(confusion)
    return {
        "findings_version": FINDINGS_VERSION,
        "num_images": len(taken.keys),
        "num_labelled": int(taken.labelled.sum()),
        "num_classes": num_classes,
        "classes": list(classes),
        "accuracy": accuracy,
        "top5_accuracy": top5_accuracy(records, taken),
        "balanced_accuracy": balanced_accuracy,
        "auroc": auroc(records, taken, num_classes),
        "confidence": by_outcome(taken.confidences, taken),
        "border_mass": by_outcome(taken.border_mass, taken),
        "concentration": by_outcome(taken.concentration, taken),
        "blank_maps": {
            "predicted": sum(map(bool, records["blank"].to_pylist())),
            "true": sum(map(bool, records["blank_true"].to_pylist())),
        },
        "pointing_game": pointing_game(records),
        "per_class": per_class,
        "confusion": confusion.tolist() if num_classes <= MAX_CONFUSION else None,
        "most_confused": most_confused(taken, classes),
    }


def share(flags: NDArray[np.bool_]) -> float | None:
    """Return the share of True, None of nothing."""
    return float(flags.mean()) if len(flags) else None


def mean(values: NDArray[np.floating[Any]]) -> float | None:
    """Return the mean without NaN, None of nothing."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else None


def by_outcome(values: NDArray[np.float32], taken: Answers) -> dict[str, float | None]:
    """Average a column over all rows, the right ones and the wrong ones."""
    return {"mean": mean(values), "right": mean(values[taken.right]), "wrong": mean(values[taken.wrong])}


def count_pairs(taken: Answers, num_classes: int) -> NDArray[np.int64]:
    """Count labelled images by label (rows) and prediction (columns).

    Predictions of classes that the index does not have share one more column at the end, if there are any.
    """
    labels, predictions = taken.labels[taken.labelled], taken.predictions[taken.labelled]
    folded = np.minimum(predictions, num_classes)
    counts = np.zeros((num_classes, num_classes + 1), np.int64)
    np.add.at(counts, (labels, folded), 1)
    return counts if counts[:, -1].any() else counts[:, :-1]


def describe_classes(taken: Answers, num_classes: int, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Describe every class with a label or a prediction: counts, recall, precision, where it looks."""
    described = []
    for number in range(num_classes):
        own, called = taken.labels == number, taken.predictions == number
        if own.any() or called.any():
            described.append(
                {
                    "class": class_name(number, classes),
                    "number": number,
                    "num_images": int(own.sum()),
                    "num_predicted": int(called.sum()),
                    "recall": share(taken.right[own]),
                    "precision": share(taken.right[called & taken.labelled]),
                    "border_mass": mean(taken.border_mass[called]),
                    "concentration": mean(taken.concentration[called]),
                }
            )
    return described


def most_confused(taken: Answers, classes: Sequence[str], num: int = 12) -> list[dict[str, Any]]:
    """List the most frequent mistakes."""
    pairs = zip(taken.labels[taken.wrong].tolist(), taken.predictions[taken.wrong].tolist(), strict=True)
    counted = sorted(Counter(pairs).items(), key=lambda item: (-item[1], item[0]))
    return [
        {"label": class_name(label, classes), "prediction": class_name(guess, classes), "count": count}
        for (label, guess), count in counted[:num]
    ]


def top5_accuracy(records: pa.Table, taken: Answers) -> float | None:
    """Return the share of labelled images with the label among the five best; None up to five classes."""
    best = records["top5"].to_pylist()
    if not best or len(best[0]) < 5 or (int(taken.labels.max(initial=-1)) < 5 and max(map(max, best)) < 5):
        return None
    within = [label in five for label, five in zip(taken.labels.tolist(), best, strict=True)]
    return share(np.asarray(within)[taken.labelled])


def auroc(records: pa.Table, taken: Answers, num_classes: int) -> float | None:
    """Return the area under the ROC curve of the second of two classes; None unless both have images."""
    if num_classes != 2 or any(len(best) != 2 for best in records["top5"].to_pylist()):
        return None
    second = np.where(taken.predictions == 1, taken.confidences, 1 - taken.confidences)
    scores = np.stack([1 - second, second], axis=1)
    return area_under_roc(scores[taken.labelled], taken.labels[taken.labelled])[0]


def pointing_game(records: pa.Table) -> dict[str, Any] | None:
    """Play the pointing game (Zhang et al., ECCV 2016) with the labelled class's map; None without boxes.

    Only images whose boxes cover at most half of them take part. The tolerance is 0 px and a blank map
    never hits. The share whose centre lies in a box is what a map that always points there would reach.
    """
    cover = column(records, "box_cover")
    played = np.flatnonzero(np.nan_to_num(cover, nan=np.inf) <= POINTING_COVER)
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


def versions() -> dict[str, str]:
    """List the versions that decide the figures."""
    found = {"python": platform.python_version()}
    for name in (
        "lightwell",
        "torch",
        "torchvision",
        "timm",
        "albumentations",
        "numpy",
        "nvidia-dali-cuda130",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write_findings(findings: Mapping[str, Any], path: Path) -> None:
    """Write findings as JSON: aside, then renamed.

    Raises:
        OutputError: the file cannot be written.
    """
    write_json(path, findings)
