"""Evaluation of class masks: intersection over union, Dice and pixel accuracy, with intervals over pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from .bootstrap import Interval, bootstrap_samples, percentile_interval, row_means


def masks_result(
    records: pa.Table, classes: tuple[str, ...], *, num_samples: int, seed: int
) -> dict[str, Any]:
    """Return the metrics as JSON types; those of the training for the same scores.

    IoU and Dice of a class are computed over the pixels of the split; means are over the classes that occur or are predicted.

    Args:
        records: of an evaluating ``MaskStage``; at least one picture has a pixel with a class.
        classes: names.
        num_samples: bootstrap samples of the intervals.
        seed: of the bootstrap.
    """
    side = len(classes)
    picture, pairs, pixels = _pixel_counts(records)
    confusion = np.bincount(pairs, weights=pixels, minlength=side**2).astype(np.int64).reshape(side, side)
    measured, picture = np.unique(picture, return_inverse=True)
    size = (len(measured), side)
    shared, labelled, predicted = (np.zeros(size, np.int64) for _ in range(3))
    same = pairs // side == pairs % side
    np.add.at(shared, (picture[same], pairs[same] % side), pixels[same])
    np.add.at(labelled, (picture, pairs // side), pixels)
    np.add.at(predicted, (picture, pairs % side), pixels)
    iou, dice, accuracy = _overlaps(
        *(each.sum(axis=0, keepdims=True) for each in (shared, labelled, predicted))
    )
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("miou", "dice", "pixel_accuracy")}
    by_class: list[np.ndarray] = []
    for weights in bootstrap_samples(len(measured), num_samples, seed):
        drawn = _overlaps(*(weights @ each for each in (shared, labelled, predicted)))
        by_class.append(drawn[0])
        for name, values in zip(found, (row_means(drawn[0]), row_means(drawn[1]), drawn[2]), strict=True):
            found[name].append(values)
    columns = np.concatenate(by_class).T if by_class else [np.empty(0)] * side
    intervals: dict[str, Interval] = {
        name: percentile_interval(np.concatenate(values)) if values else None
        for name, values in found.items()
    }
    sums = np.asarray(records["loss"].to_pylist(), dtype=np.float64).sum(axis=0)
    return {
        "loss": float((sums[: len(sums) // 2] / sums[len(sums) // 2 :]).sum()),
        "images": len(measured),
        "ignored": len(records) - len(measured),
        "miou": float(row_means(iou)[0]),
        "dice": float(row_means(dice)[0]),
        "pixel_accuracy": float(accuracy[0]),
        "intervals": intervals,
        "per_class": [
            {
                "class": name,
                "pixels": int(labelled[:, number].sum()),
                "predicted": int(predicted[:, number].sum()),
                "iou": _or_none(iou[0, number]),
                "interval": percentile_interval(columns[number]),
                "dice": _or_none(dice[0, number]),
            }
            for number, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def has_labelled_pixels(records: pa.Table) -> bool:
    """Return whether any picture has a pixel with a class."""
    return bool(len(_pixel_counts(records)[0]))


def _pixel_counts(records: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each counted pair of classes the row of its picture, the pair and its pixels: int64."""
    lists = records["pairs"].combine_chunks()
    lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
    pairs, pixels = (
        records[name].combine_chunks().flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        for name in ("pairs", "pixels")
    )
    return np.repeat(np.arange(len(records)), lengths.astype(np.int64)), pairs, pixels


def _overlaps(
    shared: np.ndarray, labelled: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return IoU and Dice, shape (samples, classes), NaN for classes that neither occur nor are predicted, and the accuracy."""
    both = (labelled + predicted).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return shared / (both - shared), 2 * shared / both, shared.sum(axis=1) / labelled.sum(axis=1)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
