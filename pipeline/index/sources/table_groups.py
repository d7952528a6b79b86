"""Columns of a table that have no other meaning, such as a camera or a site: they are kept, and audits can slice by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.types as pt

from .remarks import Remarks
from .table_file import column_values

MAX_COLUMNS = 32
"""Further columns are left out."""
MAX_LENGTH = 200
"""Columns with a longer cell, in characters, are left out: those are no groups."""


def typed_columns(table: pa.Table) -> list[str]:
    """Return the columns of a CSV table that were not read as text, so that ``007`` is not kept as 7."""
    return [field.name for field in table.schema if not pt.is_string(field.type)]


def group_columns(table: pa.Table, taken: Iterable[str]) -> list[str]:
    """Return the columns of text, numbers, flags and dates, each with a name of its own, that have no other meaning.

    Args:
        table: as read.
        taken: columns with a meaning.
    """
    names, known = table.column_names, set(taken)
    return [
        field.name
        for field in table.schema
        if field.name.strip()
        and field.name not in known
        and names.count(field.name) == 1
        and _is_simple(field)
    ]


def read_groups(
    table: pa.Table, columns: Sequence[str], file: str, remarks: Remarks
) -> list[str | None] | None:
    """Return the cells of each row as a JSON object of texts, without empty cells; None without columns.

    Args:
        table: one row per sample.
        columns: of it.
        file: name of the table, for messages.
        remarks: counts columns that are left out.
    """
    cells: dict[str, list[str]] = {}
    for name in columns:
        values = column_values(table, name, file) or []
        texts = ["" if value is None or value != value else str(value).strip() for value in values]  # noqa: PLR0124
        if len(cells) == MAX_COLUMNS or any(len(text) > MAX_LENGTH for text in texts):
            remarks.add("left_out", "columns of the table with long texts, or too many", name)
        elif any(texts):
            cells[name] = texts
    if not cells:
        return None
    rows = (
        {name: text for name, text in zip(cells, row, strict=True) if text}
        for row in zip(*cells.values(), strict=True)
    )
    return [json.dumps(row, ensure_ascii=False) if row else None for row in rows]


def _is_simple(field: pa.Field) -> bool:
    kind = field.type.value_type if pt.is_dictionary(field.type) else field.type
    return any(
        test(kind)
        for test in (
            pt.is_string,
            pt.is_large_string,
            pt.is_integer,
            pt.is_floating,
            pt.is_boolean,
            pt.is_date,
            pt.is_timestamp,
        )
    )
