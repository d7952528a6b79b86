"""Files with the same bytes, or images with the same pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .duplicate_findings import duplicate_findings
from .duplicate_groups import DuplicateGroups, fixes_of_groups, groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable
    from .fixes import FixRow


def exact_groups(table: DatasetTable) -> DuplicateGroups:
    """Return groups of images with the same pixels (column ``pixel_hash``), else of files with the same bytes."""
    codes = np.full(len(table), -1, np.int64)
    for column in (table.files.get("content_hash"), table.images.get("pixel_hash")):
        if column is not None:
            found = _codes(column)
            codes = np.where(found >= 0, found + len(table), codes)
            codes = np.unique(codes, return_inverse=True)[1] - int((codes < 0).any())
    codes[~table.is_readable] = -1
    return groups_of(codes)


def find_exact_duplicates(table: DatasetTable, groups: DuplicateGroups | None = None) -> list[Finding]:
    """Return findings about copies of files: those with different labels first, then all."""
    groups = exact_groups(table) if groups is None else groups
    return duplicate_findings(table, groups, "exact_duplicate", "exact copies of another")


def fix_exact_duplicates(table: DatasetTable, groups: DuplicateGroups | None = None) -> list[FixRow]:
    """Return rows that drop all but one of each group of copies."""
    groups = exact_groups(table) if groups is None else groups
    return fixes_of_groups(table, groups, find_exact_duplicates(table, groups), "copy")


def _codes(column: NDArray[Any]) -> NDArray[np.int64]:
    """Number the different values of hashes: strings or bytes with None, or rows of bytes that are zero without a hash."""
    codes = np.full(len(column), -1, np.int64)
    if column.ndim == 2:
        known = np.flatnonzero(column.any(axis=1))
        values: NDArray[Any] = np.ascontiguousarray(column[known]).view(f"V{column.shape[1]}").ravel()
        values = np.asarray([value.tobytes().hex() for value in values], "S")
    else:
        known = np.flatnonzero([value is not None for value in column])
        values = np.asarray(
            [value.hex() if isinstance(value, bytes) else str(value) for value in column[known]], "S"
        )
    if len(known):
        codes[known] = np.unique(values, return_inverse=True)[1]
    return codes
