"""Numbers of a whole dataset: counts, sizes, and mean and standard deviation of its channels."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ...report.versions import versions
from .checks.skipped_checks import skipped_checks

if TYPE_CHECKING:
    from ....pipeline.index.index import Index
    from .dataset_table import DatasetTable

FINDINGS_VERSION = 1
"""Of ``findings.json`` of dataset audits."""


def summarize(table: DatasetTable, index: Index) -> dict[str, Any]:
    """Return the numbers of a dataset as JSON values; None where nothing was measured."""
    readable = table.is_readable
    return {
        "findings_version": FINDINGS_VERSION,
        "num_images": len(table),
        "num_usable": int(readable.sum()),
        "num_boxes": sum(index.box_counts().values()),
        "is_multi_label": index.is_multi_label,
        "skipped_checks": skipped_checks(table, is_multi_label=index.is_multi_label),
        "classes": _counts(_class_names(table, index)),
        "splits": _counts([str(name) for name in table.splits[readable] if name is not None]),
        "formats": _counts([str(name) for name in table.files["format"][readable] if name]),
        "width": _quartiles(table.files["width"][readable]),
        "height": _quartiles(table.files["height"][readable]),
        "normalize": channel_statistics(table),
        "distributions": distributions(table),
        "index_fingerprint": index.fingerprint(),
        "versions": versions(),
    }


SHOWN = (
    "width", "height", "bytes_per_pixel", "jpeg_quality", "brightness", "contrast", "saturation", "colorfulness", "sharpness",
    "noise", "blockiness", "entropy",
)  # fmt: skip
"""Columns with a histogram."""
NUM_BINS = 24


def distributions(table: DatasetTable) -> dict[str, dict[str, Any]]:
    """Return histograms of columns, with limits between which 99 % of the values lie; the others count at the ends."""
    found = {}
    columns = {**table.files, **table.images}
    for name in SHOWN:
        values = columns.get(name)
        known = np.empty(0) if values is None else values[np.isfinite(values)]
        if len(known) and known.min() < known.max():
            low, high = np.quantile(known, (0.005, 0.995)).tolist()
            low, high = (low, high) if low < high else (float(known.min()), float(known.max()))
            counts, _ = np.histogram(known.clip(low, high), NUM_BINS, (low, high))
            found[name] = {
                "low": low,
                "high": high,
                "counts": counts.tolist(),
                "median": float(np.median(known)),
            }
    return found


def channel_statistics(table: DatasetTable) -> dict[str, list[float]] | None:
    """Return mean and standard deviation of red, green and blue over all images, each image with the same weight, 0..1.

    The variance of all pixels is the mean variance within images plus the variance of their means.
    """
    columns = [[table.images[f"{name}_{channel}"] for channel in "rgb"] for name in ("mean", "std")]
    means, deviations = (np.stack(each, axis=1)[table.is_readable] / 255 for each in columns)
    if not len(means):
        return None
    total = np.sqrt((deviations**2).mean(axis=0) + means.var(axis=0))
    return {"mean": means.mean(axis=0).round(4).tolist(), "std": total.round(4).tolist()}


def normalize_yaml(statistics: dict[str, list[float]]) -> str:
    """Return the plan's transform that gives each channel mean 0 and standard deviation 1 over this dataset."""
    mean, std = statistics["mean"], statistics["std"]
    return f"- Normalize: {{mean: {mean}, std: {std}}}"


def _class_names(table: DatasetTable, index: Index) -> list[str]:
    """Return the class of each usable image; with several labels an image has each of them."""
    readable = table.is_readable
    if not index.is_multi_label:
        return [table.class_names[label] for label in table.labels[readable] if label >= 0]
    columns = (index.table[name].to_pylist() for name in ("key", "labels"))
    labels = dict(zip(*columns, strict=True))
    return [table.class_names[label] for key in table.keys[readable] for label in labels[key] or ()]


def _counts(values: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def _quartiles(values: np.ndarray) -> list[float] | None:
    known = values[np.isfinite(values)]
    return np.quantile(known, (0, 0.25, 0.5, 0.75, 1)).tolist() if len(known) else None
