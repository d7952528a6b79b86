"""Boxes and keypoints: parsed from text, and converted to pixels of the upright image once its size is known.

Annotations refer to the upright image. If the size stated by a format is that of the stored pixels of a photo rotated by 90
degrees, its annotations are rotated, too. Other orientations cannot be detected from the size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...formats.headers import Header, one_line
from ...geometry import FIRST_TRANSPOSED
from ..file_info import FileInfo
from .listing import Boxes, Keypoints, Listing
from .remarks import Remarks

MAX_BOXES = 100_000
"""Per image."""
_GROUP = re.compile(r"\[([^\[\]]*)\]")
_NUMBERS = re.compile(r"[,\s]+")


def parse_numbers(cell: Any, width: int) -> list[list[float]] | None:
    """Parse rows of numbers from a cell: a list of lists, or text in a common notation.

    Text is ``1,2,3,4;5,6,7,8``, or lists in the notation of JSON, Python or NumPy, with or without commas.

    Args:
        cell: the cell.
        width: numbers per row.

    Returns:
        The rows, empty for an empty cell; None for a null cell.

    Raises:
        ValueError: invalid; with the expected format.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    expected = f"rows of {width} numbers such as {','.join('1234'[:width])};... or [[1, 2, ...], ...]"
    rows = _parse_text(cell) if isinstance(cell, str) else cell
    try:
        rows = list(rows)
        if rows and not isinstance(rows[0], Iterable):
            rows = [rows]
        found = [[float(number) for number in row] for row in rows]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"expected {expected}, got {str(cell)[:60]!r}") from error
    if any(len(row) != width for row in found):
        raise ValueError(f"expected {expected}, got {str(cell)[:60]!r}")
    if len(found) > MAX_BOXES:
        raise ValueError(f"expected at most {MAX_BOXES:,} rows, got {len(found):,}")
    return found


def _parse_text(text: str) -> list[list[str]]:
    text = text.strip()
    if not any(mark in text for mark in "[("):
        parts = [part.strip() for part in text.split(";")]
        return [_NUMBERS.split(part) for part in parts if part]
    listed = text.replace("(", "[").replace(")", "]")
    groups = _GROUP.findall(listed)
    rest = _GROUP.sub("", listed)
    if re.sub(r"(array|dtype=\w+|[\[\],\s])", "", rest):  # text outside the brackets
        raise ValueError(text)
    return [_NUMBERS.split(group.strip().strip(",")) for group in groups if group.strip()]


@dataclass(frozen=True, slots=True)
class _ImageGeometry:
    """Upright size of an image, and the orientation to apply to its annotations."""

    width: int
    height: int
    orientation: int
    """EXIF orientation to apply to annotations; 1 if they are already upright."""


def fit_annotations(listing: Listing, infos: Sequence[FileInfo]) -> tuple[Listing, list[FileInfo]]:
    """Convert boxes and keypoints to pixels of the upright image, and clip the boxes.

    Boxes beyond the border are clipped. Boxes without an area, outside the image, or with non-finite numbers are left out,
    and their image is kept; the listing's remarks count them. A sample whose stated size does not match its image gets an
    error status.

    Args:
        listing: from its source; boxes may be fractions of the image size (see ``Listing.box_unit``).
        infos: scan result of each sample.

    Returns:
        The listing with boxes in pixels, and the scan results, some with a new status.
    """
    if listing.boxes is None and listing.keypoints is None:
        return listing, list(infos)
    fitter = _AnnotationFitter(listing)
    headers = [fitter.add(index, one) for index, one in enumerate(infos)]
    return (
        replace(
            listing,
            boxes=None if listing.boxes is None else fitter.boxes,
            box_labels=None if listing.box_labels is None else fitter.box_labels,
            keypoints=None if listing.keypoints is None else fitter.keypoints,
            box_unit="pixel",
            declared_sizes=None,
        ),
        headers,
    )


class _AnnotationFitter:
    """Collects the converted annotations of a listing, sample by sample."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.boxes: list[Boxes | None] = []
        self.box_labels: list[list[int] | None] = []
        self.keypoints: list[Keypoints | None] = []

    def add(self, index: int, info: FileInfo) -> FileInfo:
        """Convert the annotations of one sample; return its scan result, with an error status on a size mismatch."""
        listing = self._listing
        boxes = listing.boxes[index] if listing.boxes else None
        labels = listing.box_labels[index] if listing.box_labels else None
        keypoints = listing.keypoints[index] if listing.keypoints else None
        if info.header.status == "ok" and not (boxes is None and keypoints is None):
            geometry = _image_geometry(
                info.header, listing.declared_sizes[index] if listing.declared_sizes else None
            )
            if isinstance(geometry, str):
                info = replace(info, header=replace(info.header, status=one_line(geometry)))
            else:
                boxes, labels, keypoints = self._fit(listing.keys[index], geometry, boxes, labels, keypoints)
        self.boxes.append(boxes)
        self.box_labels.append(labels)
        self.keypoints.append(keypoints)
        return info

    def _fit(
        self,
        key: str,
        geometry: _ImageGeometry,
        boxes: Boxes | None,
        labels: list[int] | None,
        keypoints: Keypoints | None,
    ) -> tuple[Boxes | None, list[int] | None, Keypoints | None]:
        if self._listing.box_unit == "fraction":
            scale = (geometry.width, geometry.height)
            boxes = boxes and [[value * scale[axis % 2] for axis, value in enumerate(box)] for box in boxes]
            keypoints = keypoints and [[x * scale[0], y * scale[1], visible] for x, y, visible in keypoints]
        if keypoints is not None:
            keypoints = [[*_transpose_point(x, y, geometry), visible] for x, y, visible in keypoints]
        if boxes is None:
            return None, labels, keypoints
        per_box = len(keypoints) // len(boxes) if keypoints and boxes else 0
        clipped_boxes = []
        for number, box in enumerate(boxes):
            if (
                inside := _clip(_transpose_box(box, geometry), geometry, key, self._listing.remarks)
            ) is not None:
                clipped_boxes.append((number, inside))
        if per_box and keypoints is not None:
            of_box = [keypoints[number * per_box : (number + 1) * per_box] for number, _ in clipped_boxes]
            keypoints = [point for points in of_box for point in points]
        return (
            [box for _, box in clipped_boxes],
            None if labels is None else [labels[number] for number, _ in clipped_boxes],
            keypoints,
        )


def _image_geometry(header: Header, declared: tuple[int, int] | None) -> _ImageGeometry | str:
    """Return the upright size of an image, or an error text if the stated size does not match."""
    quarter = header.orientation >= FIRST_TRANSPOSED
    width, height = (header.height, header.width) if quarter else (header.width, header.height)
    if declared is None or declared == (width, height):
        return _ImageGeometry(width, height, 1)
    if quarter and declared == (header.width, header.height):
        return _ImageGeometry(width, height, header.orientation)
    return (
        f"annotations: expected a picture of {declared[0]}x{declared[1]} as they state, got {width}x{height}; annotate this "
        "file, or restore the one that was annotated"
    )


def _transpose_point(x: float, y: float, geometry: _ImageGeometry) -> list[float]:
    """Map a point of the stored image to the upright one, for EXIF orientations 5 to 8, which swap the axes."""
    if geometry.orientation == 1:
        return [x, y]
    new_x = geometry.width - y if geometry.orientation in (6, 7) else y
    new_y = geometry.height - x if geometry.orientation in (7, 8) else x
    return [new_x, new_y]


def _transpose_box(box: Sequence[float], geometry: _ImageGeometry) -> list[float]:
    if geometry.orientation == 1:
        return list(box)
    (xa, ya), (xb, yb) = (
        _transpose_point(box[0], box[1], geometry),
        _transpose_point(box[2], box[3], geometry),
    )
    return [min(xa, xb), min(ya, yb), max(xa, xb), max(ya, yb)]


def _clip(box: list[float], geometry: _ImageGeometry, key: str, remarks: Remarks) -> list[float] | None:
    """Clip a box to its image; None, noted in the remarks, if nothing is left."""
    if not all(map(math.isfinite, box)):
        remarks.add("left_out", "boxes with numbers that are not finite", key)
        return None
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        remarks.add("left_out", "boxes whose second corner lies before the first", key)
        return None
    if x1 == x0 or y1 == y0:
        remarks.add("left_out", "boxes without an area", key)
        return None
    clipped = [max(x0, 0.0), max(y0, 0.0), min(x1, geometry.width), min(y1, geometry.height)]
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        remarks.add("left_out", "boxes outside their picture", key)
        return None
    if max(abs(a - b) for a, b in zip(box, clipped, strict=True)) > 1e-3:  # formats round to six digits
        remarks.add("converted", "boxes that reached beyond their picture and were clipped", key)
    return clipped
