"""Fix lists as CSV files, and their application to an index; image files are never changed."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, cast, get_args

import pyarrow as pa

from ....pipeline.atomic_io import write_text
from ....pipeline.errors import RequestError, did_you_mean
from ....pipeline.index.index import Index
from ....pipeline.text import quoted
from .checks.fixes import FIX_SCHEMA, FixAction, FixRow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""First characters from which spreadsheets take a cell for a formula."""
ESCAPE = "'"
MAX_BYTES = 1 << 30


def write_fixes(rows: Iterable[FixRow], path: Path) -> None:
    """Write a fix list; cells that a spreadsheet would take for a formula begin with an apostrophe.

    Raises:
        OutputError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIX_SCHEMA.names)
    writer.writerows(
        [_escaped(cell) for cell in (row.key, row.action, row.value, row.reason, row.finding_id)]
        for row in rows
    )
    write_text(path, text.getvalue())


def read_fixes(path: Path) -> tuple[FixRow, ...]:
    """Read a fix list; of its columns, ``value``, ``reason`` and ``finding_id`` may be missing.

    Raises:
        RequestError: the file cannot be read, a column is missing, or an action is unknown.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(f"{path}: expected a fix list below 1 GiB, got a larger file; split it")
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(
            f"{path}: expected a fix list (CSV in UTF-8), got {error}; `lightwell inspect` writes one"
        ) from error
    rows, known = [], get_args(FixAction)
    for number, line in enumerate(lines, start=2):
        cells = {name: _unescaped(line.get(name) or "") for name in FIX_SCHEMA.names}
        if not cells["key"]:
            raise RequestError(f"{path}: line {number}: expected a column key with a value, got none; add it")
        if cells["action"] not in known:
            advice = did_you_mean(cells["action"], known) or "correct it"
            raise RequestError(
                f"{path}: line {number}: action: expected {', '.join(known)}, got {quoted(cells['action'])}; {advice}"
            )
        rows.append(
            FixRow(
                cells["key"],
                cast("FixAction", cells["action"]),
                cells["value"],
                cells["reason"],
                cells["finding_id"],
            )
        )
    return tuple(rows)


def apply_fixes(index: Index, rows: Iterable[FixRow]) -> Index:
    """Return an index with the changes of a fix list: without dropped images, with other classes and splits.

    Raises:
        RequestError: a key, class or split is unknown, an image has two different rows, or the labels are sets.
    """
    position = {key: row for row, key in enumerate(index.table["key"].to_pylist())}
    labels, splits = index.table["label"].to_pylist(), index.table["split"].to_pylist()
    known = sorted({name for name in splits if name is not None})
    keep, seen = [True] * len(index), dict[str, tuple[str, str]]()
    for fix in rows:
        if fix.key not in position:
            raise _unknown("key", fix.key, position)
        if seen.setdefault(fix.key, (fix.action, fix.value)) != (fix.action, fix.value):
            raise RequestError(
                f"fix list: expected one row for {quoted(fix.key)}, got two that differ; delete one"
            )
        row = position[fix.key]
        if fix.action == "review":
            continue
        if fix.action == "drop":
            keep[row] = False
        elif fix.action == "move":
            if fix.value not in known:
                raise _unknown("split", fix.value, known)
            splits[row] = fix.value
        else:
            if index.is_multi_label:
                raise RequestError(
                    "fix list: expected an index with one class per image to relabel, got sets of labels; leave relabel out"
                )
            if fix.value not in index.classes:
                raise _unknown("class", fix.value, index.classes)
            labels[row] = index.classes.index(fix.value)
    table = index.table
    for name, values in (("label", labels), ("split", splits)):
        field = table.schema.field(name)
        table = table.set_column(table.column_names.index(name), field, pa.array(values, field.type))
    return Index(table.filter(pa.array(keep)), index.classes, None, index.box_classes, index.keypoint_names)


def _unknown(what: str, value: str, known: Iterable[str]) -> RequestError:
    advice = did_you_mean(value, known) or "correct the fix list, or apply it to the index that was inspected"
    return RequestError(f"fix list: expected a {what} of the index, got {quoted(value)}; {advice}")


def _escaped(cell: str) -> str:
    return ESCAPE + cell if cell.startswith((*FORMULA_STARTS, ESCAPE)) else cell


def _unescaped(cell: str) -> str:
    return cell[1:] if cell.startswith(ESCAPE) and cell[1:].startswith((*FORMULA_STARTS, ESCAPE)) else cell
