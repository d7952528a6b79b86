"""Tables: a CSV or Parquet file with a row per sample."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ...errors import SourceError, nearest
from ..splits import canonical_split
from .cells import parse_boxes, read_labels
from .listing import Boxes, Listing
from .storage import Storage
from .store import is_remote, without_file_scheme

SUFFIXES = (".csv", ".parquet")
DEFAULT_LABEL = "label"
_BOXES = ("boxes", "boxes_xyxy")
_ROLES = frozenset({"split", "mask", *_BOXES})
_NAMES = ("name", "class_name")


MAX_TABLE_BYTES = 2**31
"""A larger remote table is refused: it is read whole."""


def list_table(
    path: PurePath | str,
    path_column: str,
    label_column: str | None,
    root: PurePath | str | None,
    storage: Storage | None = None,
) -> Listing:
    """List the rows of a table.

    Columns: ``path_column``; ``label_column`` (text, or whole numbers that are class numbers already);
    optional ``split``, ``mask``, ``boxes`` or ``boxes_xyxy`` (text ``x0,y0,x1,y1;...`` or a list of lists)
    and, beside a numeric label, ``name`` or ``class_name``. Relative paths start at ``root``, by default the
    table's folder. ``label_column=None`` reads no labels; so does the default where nothing but paths,
    splits, masks and boxes is there. Table, root and paths may be URIs.

    Raises:
        SourceError: the table cannot be read, a column is missing, or a cell makes no sense.
    """
    uri = str(path)
    name = posixpath.basename(uri)
    table = _read(uri, (path_column, "split", "mask"), storage or Storage())
    where = _absolute(without_file_scheme(str(root or posixpath.dirname(uri) or ".")))
    _require(table, path_column, name, "path_column")
    if table.num_rows == 0:
        raise SourceError(f"wanted a table with rows, got {uri!r} with none; check the file")
    paths = _paths(table, path_column, name)
    uris = [_placed(where, text) for text in paths]
    keys = [_key(uri, f"{where}/") for uri in uris]
    _refuse_duplicates(keys, name)
    if label_column == DEFAULT_LABEL and set(table.column_names) <= _ROLES | {path_column}:
        label_column = None
    labels = [-1] * len(keys)
    classes: tuple[str, ...] = ()
    if label_column is not None:
        _require(table, label_column, name, "label_column")
        labels, classes = _labels(table, label_column)
    return Listing(
        kind="table",
        root=where,
        keys=keys,
        uris=uris,
        labels=labels,
        classes=classes,
        splits=_splits(table),
        masks=_masks(table, where),
        boxes=_boxes(table, keys),
        notes={"table": name},
    )


def _absolute(folder: str) -> str:
    return folder.rstrip("/") if is_remote(folder) else os.path.abspath(folder)  # noqa: PTH100 - links stay


def _placed(where: str, text: str) -> str:
    """Find what a path or URI in a cell means, counted from a folder or a URI."""
    text = without_file_scheme(text)
    if is_remote(text):
        return text
    if is_remote(where):
        return f"{where}/{posixpath.normpath(text)}"
    return os.path.normpath(os.path.join(where, text))  # noqa: PTH118


def _read(uri: str, text_columns: tuple[str, ...], storage: Storage) -> pa.Table:
    try:
        source = uri
        if is_remote(uri):
            found = storage.look(uri)
            if found.bytes > MAX_TABLE_BYTES:
                raise SourceError(
                    f"wanted a table of at most {MAX_TABLE_BYTES:,} bytes, got {uri!r} of {found.bytes:,}; copy it here"
                )
            source = pa.BufferReader(storage.read(uri, 0, found.bytes, expected=found.bytes).data)
        if uri.lower().endswith(".parquet"):
            return pq.read_table(source)
        text = {name: pa.string() for name in (*text_columns, *_BOXES)}
        return pa_csv.read_csv(
            source,
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=text),
        )
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise SourceError(
            f"wanted a CSV or Parquet table, got {uri!r} ({reason}); write it anew as"
            " comma-separated UTF-8 text or as Parquet"
        ) from error


def _require(table: pa.Table, column: str, file: str, argument: str) -> None:
    if column not in table.column_names:
        hint = nearest(column, table.column_names) or f"name the right one as {argument}"
        raise SourceError(f"{file}: wanted a column {column!r}, got the columns {table.column_names}; {hint}")
    if table.column_names.count(column) > 1:
        raise SourceError(f"{file}: wanted one column {column!r}, got several; rename the others")


def _paths(table: pa.Table, column: str, file: str) -> list[str]:
    cells: list[str] = table[column].to_pylist()
    for number, cell in enumerate(cells):
        if not isinstance(cell, str) or not cell.strip():
            raise SourceError(
                f"{file}: wanted a path in column {column!r} of every row, got {cell!r} in row"
                f" {number} (from 0); fill it in or drop the row"
            )
    return cells


def _key(uri: str, root: str) -> str:
    return uri.removeprefix(root).replace(os.sep, "/")


def _refuse_duplicates(keys: list[str], file: str) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise SourceError(
            f"{file}: wanted every file once, got {len(twice)} more than once, the first is"
            f" {twice[0]!r}; drop the repeated rows"
        )


def _labels(table: pa.Table, column: str) -> tuple[list[int], tuple[str, ...]]:
    names = None
    for name in _NAMES:
        if name in table.column_names and name != column:
            names = table[name].to_pylist()
            break
    return read_labels(table[column].to_pylist(), names, column)


def _column(table: pa.Table, name: str) -> list[Any] | None:
    return table[name].to_pylist() if name in table.column_names else None


def _splits(table: pa.Table) -> list[str | None] | None:
    cells = _column(table, "split")
    if cells is None:
        return None
    splits = [None if cell is None else str(cell).strip() or None for cell in cells]
    if not any(splits):
        return None
    return [split and (canonical_split(split) or split) for split in splits]


def _masks(table: pa.Table, root: str) -> list[str | None] | None:
    cells = _column(table, "mask")
    if cells is None:
        return None
    return [_placed(root, str(cell)) if cell else None for cell in cells]


def _boxes(table: pa.Table, keys: list[str]) -> list[Boxes | None] | None:
    for name in _BOXES:
        cells = _column(table, name)
        if cells is not None:
            return [parse_boxes(cell, key, name) for cell, key in zip(cells, keys, strict=True)]
    return None
