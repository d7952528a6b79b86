"""Tables as a source: a CSV or Parquet file with one row per sample."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pyarrow as pa

from ...errors import SourceError
from ...storage.local import is_remote, without_file_scheme
from ...storage.storage import Storage
from ...uris import public_uri
from ..splits import split_names
from .box_table import CLASS_COLUMNS, BoxRows, add_missing_header, read_boxes
from .box_table import COLUMNS as BOX_COLUMNS
from .labels import LabelKind, Labels, read_label_columns, read_labels
from .listing import Listing
from .remarks import Remarks
from .table_file import column_values, read_table, require_column
from .table_groups import group_columns, read_groups, typed_columns
from .table_paths import PathResolver

SUFFIXES = (".csv", ".parquet")
DEFAULT_LABEL = "label"
_ROLES = frozenset({"split", "mask"}) | BOX_COLUMNS
_NAMES = ("name", "class_name")


def list_table(
    path: PurePath | str,
    path_column: str,
    label_column: str | None,
    root: PurePath | str | None,
    storage: Storage | None = None,
    *,
    label_kind: LabelKind = "auto",
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
) -> Listing:
    """List the rows of a table.

    Columns: ``path_column``; ``label_column`` (see ``labels``) or one multi-hot column per class; optionally ``split``,
    ``mask``, boxes and keypoints (see ``box_table``) and, for numeric labels, ``name`` or ``class_name``. Paths are relative
    to ``root``, by default the table's folder. ``label_column=None`` reads no labels, and neither does the default if
    there are only paths, splits, masks and boxes. Other columns are kept as groups (see ``table_groups``). Table, root and paths may be URIs.

    Rows with an invalid path, or that contradict another row of the same file, get an error status. Duplicate rows are
    merged and counted.

    Raises:
        SourceError: the table cannot be read, a column is missing, or no row has a path.
    """
    uri = str(path)
    name = posixpath.basename(public_uri(uri))
    storage = storage or Storage()
    remarks = Remarks()
    text = [path_column, "split", "mask", *BOX_COLUMNS, *CLASS_COLUMNS, *_NAMES, *label_columns]
    text += [label_column] if label_column else []
    table = read_table(uri, text, storage, remarks)
    if name.lower().endswith(".csv"):
        if typed := typed_columns(table):
            table = read_table(uri, [*text, *typed], storage, Remarks())
        table = add_missing_header(table, path_column, remarks)
    other = group_columns(table, text)
    root_path = _absolute(without_file_scheme(str(root or posixpath.dirname(public_uri(uri)) or ".")))
    require_column(table, path_column, name, "path_column")
    if table.num_rows == 0:
        raise SourceError(f"expected a table with rows, got {public_uri(uri)!r} with none; check the file")
    has_roles_only = set(table.column_names) <= _ROLES | {path_column}
    if label_columns or (label_column == DEFAULT_LABEL and has_roles_only):
        label_column = None
    boxes = read_boxes(table, path_column, label_column, name, remarks)
    if boxes is not None:
        table = table.take(pa.array(boxes.rows, pa.int64()))
        is_missing = label_column == DEFAULT_LABEL and label_column not in table.column_names
        if is_missing or label_column == boxes.box_label_column:
            label_column = None
    if label_column is not None:
        require_column(table, label_column, name, "label_column")
    roles = {label_column, *label_columns, *_ROLES, *_NAMES}
    used = [
        one
        for one in dict.fromkeys(table.column_names)
        if one in roles and table.column_names.count(one) == 1
    ]
    rows = _Rows.collect(
        table, path_column, used, name, PathResolver(root_path, storage.rules, remarks), remarks
    )
    table = table.take(pa.array(rows.row_indices, pa.int64()))
    labels = _labels(table, label_column, label_columns, name, remarks, label_kind, label_separator)
    splits = column_values(table, "split", name)
    return Listing(
        kind="table",
        root=root_path,
        keys=rows.keys,
        uris=rows.uris,
        labels=labels.numbers,
        classes=labels.classes,
        splits=None if splits is None else _splits(splits, remarks),
        masks=rows.masks,
        **_annotations(boxes, rows),
        notes={"table": name, "label_field": label_column},
        remarks=remarks,
        label_sets=labels.sets,
        groups=read_groups(table, other, name, remarks),
        refused={**_refused(boxes, rows), **rows.refused},
    )


class _Rows:
    """The rows of a table, one per file."""

    def __init__(self) -> None:
        self.row_indices: list[int] = []
        """Numbers of the rows that are kept."""
        self.keys: list[str] = []
        self.uris: list[str] = []
        self.masks: list[str | None] | None = None
        self.refused: dict[int, str] = {}
        """Error status by position."""

    @classmethod
    def collect(
        cls,
        table: pa.Table,
        path_column: str,
        used: list[str],
        name: str,
        paths: PathResolver,
        remarks: Remarks,
    ) -> _Rows:
        """Resolve the paths, merge duplicate rows, and refuse rows that contradict each other in a used column."""
        rows = cls()
        index_by_key: dict[str, int] = {}
        cells = column_values(table, path_column, name) or []
        masks = column_values(table, "mask", name)
        found: list[str | None] = []
        duplicates: dict[int, list[int]] = {}
        for number, cell in enumerate(cells):
            resolved = paths.resolve(cell, number)
            if (known := index_by_key.setdefault(resolved.key, len(rows.keys))) < len(rows.keys):
                duplicates.setdefault(known, [rows.row_indices[known]]).append(number)
                continue
            mask, refusal = (None, None) if masks is None else paths.resolve_mask(masks[number], number)
            if refusal := resolved.refusal or refusal:
                rows.refused[len(rows.keys)] = refusal
            found.append(mask)
            rows.row_indices.append(number)
            rows.keys.append(resolved.key)
            rows.uris.append(resolved.uri)
        rows.masks = None if masks is None else found
        if len(rows.refused) == len(rows.keys) and not any(rows.uris):
            raise SourceError(
                f"{name}: expected a path in column {path_column!r}, got none in any row; fill it in"
            )
        rows._merge(table.select(used), duplicates, remarks)
        return rows

    def _merge(self, table: pa.Table, duplicates: dict[int, list[int]], remarks: Remarks) -> None:
        """Count duplicate rows, and refuse the files whose rows differ in a used column."""
        numbers = [number for some in duplicates.values() for number in some]
        columns = table.take(pa.array(numbers, pa.int64())).to_pydict()
        cells = iter(
            [{name: values[index] for name, values in columns.items()} for index in range(len(numbers))]
        )
        for known, some in duplicates.items():
            rows = [next(cells) for _ in some]
            differ = next(
                (name for name in rows[0] if any(str(row[name]) != str(rows[0][name]) for row in rows)), None
            )
            what = "rows that repeat another one"
            if differ is not None and known not in self.refused:
                values = ", ".join(dict.fromkeys(str(row[differ])[:40] for row in rows[:5]))
                self.refused[known] = (
                    f"cannot be used: {len(some)} rows with this path differ in {differ!r} ({values}); keep one of them, or "
                    "join several labels as a|b"
                )
                what = "rows that contradict another one with the same path"
            remarks.add("merged", what, self.keys[known], count=len(some) - 1)


def _absolute(folder: str) -> str:
    return public_uri(folder).rstrip("/") if is_remote(folder) else os.path.abspath(folder)  # noqa: PTH100 - keeps links


def _labels(
    table: pa.Table,
    column: str | None,
    columns: Sequence[str],
    file: str,
    remarks: Remarks,
    kind: LabelKind,
    separator: str | None,
) -> Labels:
    if columns:
        for one in columns:
            require_column(table, one, file, "label_columns")
        return read_label_columns({one: column_values(table, one, file) or [] for one in columns}, remarks)
    if column is None:
        return Labels([-1] * len(table), ())
    names = next(
        (column_values(table, one, file) for one in _NAMES if one in table.column_names and one != column),
        None,
    )
    cells = column_values(table, column, file) or []
    return read_labels(cells, names, column, remarks=remarks, kind=kind, separator=separator)


def _splits(cells: Sequence[Any], remarks: Remarks) -> list[str | None] | None:
    splits = [None if cell is None or cell != cell else str(cell).strip() or None for cell in cells]  # noqa: PLR0124
    if not any(splits):
        return None
    names = split_names([split for split in splits if split], remarks)
    remarks.add("left_out", "samples without a split, which are in none", count=splits.count(None))
    return [split and names[split] for split in splits]


def _annotations(boxes: BoxRows | None, rows: _Rows) -> dict[str, Any]:
    """Return boxes and keypoints of the kept rows, as fields of a listing."""
    if boxes is None:
        return {}
    return {
        "boxes": [boxes.boxes[row] for row in rows.row_indices],
        "box_labels": boxes.labels and [boxes.labels[row] for row in rows.row_indices],
        "box_classes": boxes.classes,
        "box_unit": boxes.unit,
        "keypoints": boxes.keypoints and [boxes.keypoints[row] for row in rows.row_indices],
        "keypoint_names": boxes.keypoint_names,
    }


def _refused(boxes: BoxRows | None, rows: _Rows) -> dict[int, str]:
    """Return the error status of kept rows with invalid boxes, by position."""
    if boxes is None:
        return {}
    return {index: boxes.refused[row] for index, row in enumerate(rows.row_indices) if row in boxes.refused}
