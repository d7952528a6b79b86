"""Boxes and keypoints of a table: lists in the row of an image, or one row per box.

Tables with one row per box have four coordinate columns (``x0,y0,x1,y1``, ``xmin,ymin,xmax,ymax``, ``x,y,w,h`` or similar) and
repeat the path; a row without coordinates is an image without boxes. Lists of boxes are in one column: ``boxes`` or
``boxes_xyxy``, ``boxes_xywh``, or with the suffix ``n`` (``boxes_xyxyn``) as fractions of the image size. A table with repeated
paths and at most one box per cell also has one row per box; its label column then holds the class of the box, not of the
image. With lists, ``box_labels`` holds the class names, and ``keypoints`` rows of x, y and optionally visibility.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from .boxes import parse_numbers
from .labels import read_labels
from .listing import Boxes, Keypoints
from .remarks import Remarks
from .table_file import column_values

Form = Literal["xyxy", "xywh"]

CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
SIDES = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("left", "top", "width", "height"),
)
LISTS: dict[str, tuple[Form, Literal["pixel", "fraction"]]] = {
    "boxes": ("xyxy", "pixel"),
    "boxes_xyxy": ("xyxy", "pixel"),
    "boxes_xywh": ("xywh", "pixel"),
    "boxes_xyxyn": ("xyxy", "fraction"),
    "boxes_xywhn": ("xywh", "fraction"),
}
BOX_LABELS = "box_labels"
KEYPOINTS = "keypoints"
CLASS_COLUMNS = ("box_label", "class", "class_name", "category", "label")
"""Columns for the class of a row's box, besides the label column; the first existing one is used."""
COLUMNS = frozenset(
    {*LISTS, BOX_LABELS, KEYPOINTS, *(name for names in (*CORNERS, *SIDES) for name in names)}
)
"""Columns that describe boxes, and are therefore not image labels."""
HEADERLESS = ("path", "x0", "y0", "x1", "y1", "label")
"""Columns of a CSV file without a header, in the format of keras-retinanet."""
REFUSED = "cannot be used: "


@dataclass
class BoxRows:
    """Boxes of a table, grouped by image."""

    rows: list[int] = field(default_factory=list)
    """Number of the first row of each image."""
    boxes: list[Boxes | None] = field(default_factory=list)
    labels: list[list[int] | None] | None = None
    classes: tuple[str, ...] = ()
    keypoints: list[Keypoints | None] | None = None
    keypoint_names: tuple[str, ...] = ()
    unit: Literal["pixel", "fraction"] = "pixel"
    refused: dict[int, str] = field(default_factory=dict)
    """Error status of unusable images, by position in ``rows``."""
    box_label_column: str | None = None
    """The column with the classes of boxes, if it is not of images."""


def add_missing_header(table: pa.Table, path_column: str, remarks: Remarks) -> pa.Table:
    """Add column names to a CSV whose first line is data: a path and four numbers."""
    names = table.column_names
    if path_column in names or len(names) != len(HEADERLESS) or not _is_data_row(names):
        return table
    remarks.add("assumed", "table without a header: path, x0, y0, x1, y1, label", names[0])
    lines = [names, *zip(*(column.cast(pa.string()).to_pylist() for column in table.columns), strict=True)]
    columns = [pa.array([cell or None for cell in cells], pa.string()) for cells in zip(*lines, strict=True)]
    return pa.table(columns, names=[path_column, *HEADERLESS[1:]])


def _is_data_row(names: Sequence[str]) -> bool:
    return bool(names[0]) and (not any(names[1:]) or all(map(_is_number, names[1:5])))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_boxes(
    table: pa.Table, path_column: str, label_column: str | None, file: str, remarks: Remarks
) -> BoxRows | None:
    """Read the boxes and keypoints of a table; None for a table without.

    Args:
        table: the complete table.
        path_column: identifies the rows of an image.
        label_column: the requested label column.
        file: name of the table, for messages.
        remarks: counts what was left out or assumed.

    Raises:
        SourceError: a column cannot be read, or is ambiguous.
    """
    names = set(table.column_names)
    list_column = next((name for name in LISTS if name in names), None)
    coordinate_columns = next((columns for columns in (*CORNERS, *SIDES) if names.issuperset(columns)), None)
    if list_column is None and coordinate_columns is None and KEYPOINTS not in names:
        return None
    reader = _BoxReader(table, path_column, file, remarks)
    form: Form = "xyxy"
    parsed: list[Boxes | None] = [None] * len(table)
    if list_column is not None:
        form, reader.result.unit = LISTS[list_column]
        cells = column_values(table, list_column, file) or []
        parsed = [reader.parse(row, cell, 4, list_column) for row, cell in enumerate(cells)]
    elif coordinate_columns is not None:
        form = "xyxy" if coordinate_columns in CORNERS else "xywh"
        corners = zip(*(column_values(table, name, file) or [] for name in coordinate_columns), strict=True)
        parsed = [reader.join(row, cells, coordinate_columns) for row, cells in enumerate(corners)]
    if form == "xywh":
        parsed = [rows and [[x, y, x + w, y + h] for x, y, w, h in rows] for rows in parsed]
    reader.add(
        parsed, label_column, has_coordinate_columns=list_column is None and coordinate_columns is not None
    )
    return reader.result


class _BoxReader:
    """Collects the boxes of a table by image."""

    def __init__(self, table: pa.Table, path_column: str, file: str, remarks: Remarks) -> None:
        self.result = BoxRows()
        self._table = table
        self._file = file
        self._remarks = remarks
        self._paths = column_values(table, path_column, file) or []
        self._errors: dict[int, str] = {}
        """Error status of invalid cells, by row."""

    def parse(self, row: int, cell: Any, width: int, column: str) -> list[list[float]] | None:
        """Parse the rows of numbers of a cell; an invalid one makes its image unusable."""
        try:
            return parse_numbers(cell, width)
        except ValueError as error:
            self._errors[row] = f"{REFUSED}column {column!r}: {error}"
            return None

    def join(self, row: int, cells: Sequence[Any], columns: Sequence[str]) -> list[list[float]] | None:
        """Parse the box of a row from four cells; all of them empty means no box."""
        given = [cell for cell in cells if not (cell is None or cell == "" or cell != cell)]  # noqa: PLR0124 - NaN
        if not given:
            return []
        try:
            if len(given) == len(columns):
                return [[float(cell) for cell in cells]]
        except (TypeError, ValueError):
            pass
        self._errors[row] = f"{REFUSED}columns {', '.join(columns)}: expected four numbers, got {cells!r:.80}"
        return None

    def add(
        self, parsed: Sequence[Boxes | None], label_column: str | None, *, has_coordinate_columns: bool
    ) -> None:
        """Group the rows by image."""
        repeated = len(set(map(str, self._paths))) < len(self._paths)
        per_box = has_coordinate_columns or (
            repeated and all(len(rows or ()) <= 1 for rows in parsed) and any(parsed)
        )
        images = self._group(per_box)
        self.result.rows = [rows[0] for rows in images]
        has_boxes = any(rows is not None for rows in parsed)
        for position, rows in enumerate(images):
            bad = next((self._errors[row] for row in rows if row in self._errors), None)
            if bad is not None:
                self.result.refused[position] = bad
            known = [parsed[row] for row in rows if parsed[row] is not None]
            self.result.boxes.append([box for boxes in known for box in boxes or ()] if known else None)
        if per_box:
            self._remarks.add("assumed", "rows that are one box each", count=len(self._paths))
            self._label_rows(images, parsed, label_column)
            self._refuse_contradictions(images)
        elif has_boxes:
            self._label_lists(images)
        if KEYPOINTS in self._table.column_names:
            self._add_keypoints(images)

    def _group(self, per_box: bool) -> list[list[int]]:
        if not per_box:
            return [[row] for row in range(len(self._paths))]
        images: dict[Any, list[int]] = {}
        for row, path in enumerate(self._paths):
            images.setdefault((row, None) if path is None else str(path), []).append(row)
        return list(images.values())

    def _label_rows(
        self, images: Sequence[Sequence[int]], parsed: Sequence[Boxes | None], label_column: str | None
    ) -> None:
        names = dict.fromkeys(
            [*CLASS_COLUMNS[:1], *([label_column] if label_column else []), *CLASS_COLUMNS[1:]]
        )
        column = next((name for name in names if name in self._table.column_names), None)
        if column is None:
            return
        cells = column_values(self._table, column, self._file) or []
        rows = [row for one in images for row in one if parsed[row]]
        self.result.box_label_column = column
        self._number([cells[row] for row in rows], column)

    def _label_lists(self, images: Sequence[Sequence[int]]) -> None:
        cells = column_values(self._table, BOX_LABELS, self._file)
        if cells is None:
            return
        flat: list[Any] = []
        for position, (row,) in enumerate(images):
            names = _parse_names(cells[row])
            num_boxes = len(self.result.boxes[position] or ())
            if names is not None and len(names) != num_boxes:
                self.result.refused.setdefault(
                    position,
                    f"{REFUSED}column {BOX_LABELS!r}: expected {num_boxes} names, one per box, got {len(names)}",
                )
                names = None
            flat += [None] * num_boxes if names is None else names
        self._number(flat, BOX_LABELS)

    def _number(self, cells: Sequence[Any], column: str) -> None:
        """Map the classes of all boxes to numbers; cells are in the order of images and boxes."""
        numbered = read_labels(cells, None, column, remarks=self._remarks, separator="")
        self.result.classes = numbered.classes
        self.result.labels = []
        start = 0
        for boxes in self.result.boxes:
            self.result.labels.append(None if boxes is None else numbered.numbers[start : start + len(boxes)])
            start += len(boxes or ())
        assert start == len(numbered.numbers), (start, len(numbered.numbers))

    def _refuse_contradictions(self, images: Sequence[Sequence[int]]) -> None:
        """Refuse images whose rows have several splits or masks."""
        for column in ("split", "mask"):
            cells = column_values(self._table, column, self._file)
            for position, rows in enumerate(images) if cells is not None else ():
                values = dict.fromkeys(str(cells[row]) for row in rows) if cells is not None else {}
                if len(values) > 1:
                    self.result.refused.setdefault(
                        position,
                        f"{REFUSED}its {len(rows)} rows differ in {column!r} ({', '.join(list(values)[:3])})",
                    )

    def _add_keypoints(self, images: Sequence[Sequence[int]]) -> None:
        cells = column_values(self._table, KEYPOINTS, self._file) or []
        keypoints: list[Keypoints | None] = []
        for position, rows in enumerate(images):
            points = self._points(rows[0], cells[rows[0]])
            boxes = self.result.boxes[position]
            if points and boxes and len(points) % len(boxes):
                self.result.refused.setdefault(
                    position,
                    f"{REFUSED}column {KEYPOINTS!r}: expected as many points for each of {len(boxes)} boxes, got {len(points)}",
                )
            if rows[0] in self._errors:
                self.result.refused.setdefault(position, self._errors[rows[0]])
            keypoints.append(points)
        sizes = {
            len(points) // (len(boxes) if boxes else 1)
            for points, boxes in zip(keypoints, self.result.boxes, strict=True)
            if points
        }
        if len(sizes) > 1:
            self._remarks.add(
                "left_out", "keypoints: their number differs from image to image", count=len(keypoints)
            )
        elif sizes:
            self.result.keypoints = keypoints
            self.result.keypoint_names = tuple(map(str, range(sizes.pop())))

    def _points(self, row: int, cell: Any) -> Keypoints | None:
        try:
            points = parse_numbers(cell, 3)
        except ValueError:
            flat = self.parse(row, cell, 2, KEYPOINTS)
            points = None if flat is None else [[x, y, 2.0] for x, y in flat]
        return points


def _parse_names(cell: Any) -> list[Any] | None:
    """Parse the class names of one image's boxes: a list, or text separated by ``;``."""
    if cell is None or cell != cell:  # noqa: PLR0124 - NaN
        return None
    if isinstance(cell, str):
        return [name.strip() for name in cell.split(";")] if cell.strip() else []
    return list(cell) if isinstance(cell, list | tuple) else [cell]
