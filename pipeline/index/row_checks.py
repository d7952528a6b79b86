"""Rows of an index file that claim to be usable and cannot be: a value is missing, or is none that a file can have."""

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
"""Least and largest value that a usable row may have."""


def mark_invalid_rows(table: pa.Table) -> pa.Table:
    """Give rows that are marked usable and lack a value, or have one that cannot be, a status that says so."""
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
            reason = f"cannot be used: the index has no right value in its column {name!r}; index again"
            status = pc.if_else(wrong, reason, status)
            refused = True
    if not refused:
        return table
    return table.set_column(table.column_names.index("status"), table.schema.field("status"), status)
