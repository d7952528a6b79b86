"""Boxes and keypoints in the ``.json`` members of shards, as ``lightwell materialize`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .boxes import parse_numbers
from .labels import read_labels
from .listing import Boxes, Keypoints
from .remarks import Remarks

BAD = "boxes or keypoints of .json members that make no sense"


@dataclass(frozen=True)
class ShardAnnotations:
    """Annotations of the samples of shards; None for what no sample has."""

    boxes: list[Boxes | None] | None = None
    box_labels: list[list[int] | None] | None = None
    box_classes: tuple[str, ...] = ()
    keypoints: list[Keypoints | None] | None = None
    keypoint_names: tuple[str, ...] = ()


def read_annotations(fields: Sequence[Mapping[str, Any]], remarks: Remarks) -> ShardAnnotations:
    """Read boxes and keypoints from the fields of each sample; what makes no sense is counted and read as none.

    Args:
        fields: of each sample.
        remarks: counts what is left out.
    """
    boxes = [_rows(one.get("boxes"), 4, remarks) for one in fields]
    keypoints = [_rows(one.get("keypoints"), 3, remarks) for one in fields]
    has_boxes, has_keypoints = (any(one is not None for one in some) for some in (boxes, keypoints))
    names: list[Any] = next(
        (one["keypoint_names"] for one in fields if isinstance(one.get("keypoint_names"), list)), []
    )
    labels, classes = _labels(fields, boxes, remarks)
    return ShardAnnotations(
        boxes if has_boxes else None,
        labels,
        classes,
        keypoints if has_keypoints else None,
        tuple(map(str, names)) if has_keypoints else (),
    )


def _rows(cell: Any, width: int, remarks: Remarks) -> list[list[float]] | None:
    try:
        return parse_numbers(cell, width)
    except ValueError as error:
        remarks.add("left_out", BAD, str(error))
        return None


def _labels(
    fields: Sequence[Mapping[str, Any]], boxes: Sequence[Boxes | None], remarks: Remarks
) -> tuple[list[list[int] | None] | None, tuple[str, ...]]:
    """Number the classes of all boxes: by the numbers that are written, which the names beside them explain."""
    numbers: list[Any] = []
    names: list[Any] = []
    for one, some in zip(fields, boxes, strict=True):
        numbers += _as_many(one.get("box_labels"), len(some or ()))
        names += _as_many(one.get("box_classes"), len(some or ()))
    if not any(one is not None for one in (*numbers, *names)):
        return None, ()
    cells = numbers if any(one is not None for one in numbers) else names
    found = read_labels(cells, names, "box_labels", remarks=remarks, separator="")
    labels: list[list[int] | None] = []
    start = 0
    for some in boxes:
        labels.append(None if some is None else found.numbers[start : start + len(some)])
        start += len(some or ())
    return labels, found.classes


def _as_many(written: Any, number: int) -> list[Any]:
    """Return a list of so many values; None for each where something else is written."""
    return written if isinstance(written, list) and len(written) == number else [None] * number
