"""What the cells of a table mean: boxes."""

from __future__ import annotations

import math
from typing import Any

from ...errors import SourceError
from .listing import Boxes


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
