"""Checks that a dataset does not allow, with the reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .feature_pairs import MAX_ROWS
from .learning_curve import MIN_EACH
from .predictive_properties import MIN_IMAGES
from .suspected_labels import MIN_LABELS

if TYPE_CHECKING:
    from ..dataset_table import DatasetTable


def skipped_checks(table: DatasetTable, *, is_multi_label: bool) -> dict[str, str]:
    """Return the reason for each check that was not made, by the name of the check.

    Args:
        table: of the dataset.
        is_multi_label: whether its images may have several labels each.
    """
    readable = table.is_readable
    if not readable.any():
        return {"all checks but those of unreadable files": "no image can be read"}
    sizes = np.unique(table.labels[readable & (table.labels >= 0)], return_counts=True)[1]
    unlabelled = _why_unlabelled(len(sizes), is_multi_label=is_multi_label)
    found = {}
    if unlabelled:
        found["class balance"] = unlabelled
    if unlabelled or (sizes >= MIN_IMAGES).sum() < 2:
        found["properties that predict the class"] = (
            unlabelled or f"fewer than two classes have {MIN_IMAGES} images"
        )
    if len({name for name, usable in zip(table.splits, readable, strict=True) if usable and name}) < 2:
        found["leakage and drift between splits"] = "the images are not divided into splits"
    without = None if table.features is not None else "they need a network; add --model"
    few = f"fewer than {MIN_LABELS} images have a label" if sizes.sum() < MIN_LABELS else None
    if reason := without or unlabelled or few:
        found["suspected labels"] = reason
    few = f"a class has fewer than {MIN_EACH} images" if len(sizes) and sizes.min() < MIN_EACH else None
    if reason := without or unlabelled or few:
        found["learning curve"] = reason
    many = f"there are more than {MAX_ROWS:,} images" if len(table) > MAX_ROWS else None
    if reason := without or many:
        found["near duplicates by features"] = reason
    if without:
        found["outliers, coverage and domain gap"] = without
    return found


def _why_unlabelled(num_classes: int, *, is_multi_label: bool) -> str | None:
    if is_multi_label:
        return "images have several labels each"
    if num_classes < 2:
        return "images have no labels" if num_classes == 0 else "all images are of one class"
    return None
