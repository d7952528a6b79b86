"""Validates rows of an index file that are marked usable: no missing and no impossible values."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

LIMITS: dict[str, tuple[int, int]] = {
    "bytes": (0, 2**62),
    "width": (1, 2**31 - 1),
    "height": (1, 2**31 - 1),
    "orientation": (1, 8),
    "label": (-1, 2**31 - 1),
}
"""Smallest and largest valid value of a usable row, by column."""


def mark_invalid_rows(table: pa.Table) -> pa.Table:
    """Set an error status for rows that are marked usable but have missing or impossible values."""
    status = table["status"]
    refused = False
    for name in ("key", "uri", *LIMITS):
        column = table[name]
        wrong = pc.is_null(column)
        if name in LIMITS:
            least, largest = LIMITS[name]
            fits = pc.and_(pc.greater_equal(column, least), pc.less_equal(column, largest))
            wrong = pc.invert(pc.fill_null(fits, False))
        wrong = pc.and_(wrong, pc.fill_null(pc.equal(status, "ok"), False))
        if pc.any(wrong).as_py():
            reason = f"cannot be used: the index has no valid value in its column {name!r}; index again"
            status = pc.if_else(wrong, reason, status)
            refused = True
    if not refused:
        return table
    return table.set_column(table.column_names.index("status"), table.schema.field("status"), status)
