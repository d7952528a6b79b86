"""The columns of a dataset's table that a check may compare: numbers, and categories with few values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

IDENTITIES = frozenset({"content_hash", "pixel_hash", "exif_date"})
"""Columns whose values hardly occur twice."""
MAX_VALUES = 20
"""Most frequent values that a category keeps; the others are ``other``."""
OTHER, NONE = "other", "none"


def number_columns(table: DatasetTable) -> dict[str, NDArray[np.float64]]:
    """Return columns of numbers that differ between images, by name in alphabetical order; NaN where there is none."""
    found = {}
    for name, column in _columns(table).items():
        if column.ndim == 1 and column.dtype.kind in "fiub":
            values = np.asarray(column, np.float64)
            known = values[np.isfinite(values)]
            if len(known) and known.min() < known.max():
                found[name] = np.where(np.isfinite(values), values, np.nan)
    return found


def category_columns(table: DatasetTable) -> dict[str, tuple[NDArray[np.int64], tuple[str, ...]]]:
    """Return columns of text that differ between images, as numbers of values and their names, by name of the column."""
    found = {}
    for name, column in _columns(table).items():
        if column.ndim == 1 and column.dtype.kind in "OU" and name not in IDENTITIES:
            texts = np.asarray([NONE if value is None else str(value) for value in column.tolist()], np.str_)
            names, codes, counts = np.unique(texts, return_inverse=True, return_counts=True)
            if 1 < len(names) <= max(MAX_VALUES, len(texts) // 2):
                kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_VALUES])
                numbers = np.full(len(names), len(kept), np.int64)
                numbers[kept] = np.arange(len(kept))
                found[name] = numbers[codes], (*(str(value) for value in names[kept]), OTHER)
    return found


def _columns(table: DatasetTable) -> Mapping[str, NDArray[Any]]:
    columns = {**table.files, **table.images}
    return {name: columns[name] for name in sorted(columns)}
