"""What the cells of a table mean: labels and boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...errors import SourceError
from .listing import Boxes

MAX_CLASSES = 1_000_000


def read_labels(
    cells: Sequence[Any], names: Sequence[Any] | None, column: str
) -> tuple[list[int], tuple[str, ...]]:
    """Turn label cells into class numbers and class names.

    Whole numbers stay what they are, so that they can index a model with more classes than the table shows;
    their names come from ``names`` where these agree, else from the number. Text is sorted. Empty cells and
    -1 mean no label.

    Raises:
        SourceError: fractions, numbers below -1 or numbers too big to be class numbers.
    """
    given = [cell for cell in cells if cell is not None and cell != ""]
    if given and all(_is_whole(cell) for cell in given):
        labels = [-1 if cell is None or cell == "" else int(cell) for cell in cells]
        if min(labels) < -1 or max(labels) >= MAX_CLASSES:
            raise SourceError(
                f"column {column!r}: wanted class numbers 0..{MAX_CLASSES - 1} (or -1 for none), got"
                f" {min(labels)}..{max(labels)}; write identifiers as text"
            )
        return labels, _class_names(labels, names)
    wrong = next((cell for cell in given if isinstance(cell, float | list | dict)), None)
    if wrong is not None:
        raise SourceError(
            f"column {column!r}: wanted class names or whole numbers, got {wrong!r};"
            " a continuous target or several labels per image are not supported: write one class per row"
        )
    texts = [None if cell is None or cell == "" else str(cell) for cell in cells]
    classes = tuple(sorted({text for text in texts if text is not None}))
    numbers = {name: number for number, name in enumerate(classes)}
    return [-1 if text is None else numbers[text] for text in texts], classes


def _is_whole(cell: object) -> bool:
    if isinstance(cell, bool):
        return False
    return isinstance(cell, int) or (isinstance(cell, float) and cell.is_integer())


def _class_names(labels: Sequence[int], names: Sequence[Any] | None) -> tuple[str, ...]:
    known: dict[int, str] = {}
    for label, name in zip(labels, names or [], strict=False):
        if label < 0 or name is None or name == "":
            continue
        if known.setdefault(label, str(name)) != str(name):
            known = {}  # one class, two names: the column names something else, such as files
            break
    return tuple(known.get(number, str(number)) for number in range(max(labels) + 1))


def parse_boxes(cell: Any, key: str, column: str) -> Boxes | None:
    """Read boxes from text ``x0,y0,x1,y1;...`` or from a list of lists of four numbers.

    Returns:
        Boxes in pixels, an empty list where the cell is empty, None where it is null.

    Raises:
        SourceError: not four finite numbers, or corners in the wrong order.
    """
    if cell is None:
        return None
    parts: list[Any] = cell
    if isinstance(cell, str):
        parts = [part.split(",") for part in cell.split(";") if part.strip()]
    try:
        boxes = [[float(number) for number in part] for part in parts]
    except (TypeError, ValueError) as error:
        raise _bad_box(key, column, cell) from error
    for box in boxes:
        if len(box) != 4 or not all(map(math.isfinite, box)) or box[2] < box[0] or box[3] < box[1]:
            raise _bad_box(key, column, box)
    return boxes


def _bad_box(key: str, column: str, got: object) -> SourceError:
    return SourceError(
        f"column {column!r} of {key!r}: wanted boxes as x0,y0,x1,y1 in pixels with x0 <= x1 and y0 <= y1,"
        f" got {str(got)[:80]!r}; write corners, not width and height"
    )
