"""Boxes and keypoints from the ``.json`` members of shards, as written by ``lightwell materialize``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .boxes import parse_numbers
from .labels import read_labels
from .listing import Boxes, Keypoints
from .remarks import Remarks

INVALID = "boxes or keypoints of .json members that make no sense"


@dataclass(frozen=True)
class ShardAnnotations:
    """Annotations of the samples of shards; a field is None if no sample has it."""

    boxes: list[Boxes | None] | None = None
    box_labels: list[list[int] | None] | None = None
    box_classes: tuple[str, ...] = ()
    keypoints: list[Keypoints | None] | None = None
    keypoint_names: tuple[str, ...] = ()


def read_annotations(fields: Sequence[Mapping[str, Any]], remarks: Remarks) -> ShardAnnotations:
    """Read boxes and keypoints from the JSON fields of each sample; invalid ones are counted and left out.

    Args:
        fields: JSON fields of each sample.
        remarks: counts what is left out.
    """
    boxes = [_rows(sample.get("boxes"), 4, remarks) for sample in fields]
    keypoints = [_rows(sample.get("keypoints"), 3, remarks) for sample in fields]
    has_boxes, has_keypoints = (any(one is not None for one in column) for column in (boxes, keypoints))
    names: list[Any] = next(
        (sample["keypoint_names"] for sample in fields if isinstance(sample.get("keypoint_names"), list)),
        [],
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
        remarks.add("left_out", INVALID, str(error))
        return None


def _labels(
    fields: Sequence[Mapping[str, Any]], boxes: Sequence[Boxes | None], remarks: Remarks
) -> tuple[list[list[int] | None] | None, tuple[str, ...]]:
    """Map the classes of all boxes to numbers: the given numbers with their names, or else the names."""
    numbers: list[Any] = []
    names: list[Any] = []
    for sample, sample_boxes in zip(fields, boxes, strict=True):
        numbers += _list_of_length(sample.get("box_labels"), len(sample_boxes or ()))
        names += _list_of_length(sample.get("box_classes"), len(sample_boxes or ()))
    if not any(one is not None for one in (*numbers, *names)):
        return None, ()
    cells = numbers if any(one is not None for one in numbers) else names
    found = read_labels(cells, names, "box_labels", remarks=remarks, separator="")
    labels: list[list[int] | None] = []
    start = 0
    for sample_boxes in boxes:
        labels.append(None if sample_boxes is None else found.numbers[start : start + len(sample_boxes)])
        start += len(sample_boxes or ())
    return labels, found.classes


def _list_of_length(raw: Any, number: int) -> list[Any]:
    """Return a list of this length as it is; for anything else, a list of None."""
    return raw if isinstance(raw, list) and len(raw) == number else [None] * number
