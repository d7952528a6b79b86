"""Masks, boxes and keypoints of one sample, from its row in the index to the finished picture.

All of them belong to the upright picture, are checked against it when the sample is read, and go through the same
geometry as its pixels. Boxes without an area inside the picture are left out; whatever else does not fit costs the
sample, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import PlanError, SourceError
from ..formats.headers import Header
from ..formats.mask_headers import IGNORED
from ..geometry import Size
from ..index.boxes import BOX_COLUMNS, has_area
from ..index.index import Index
from ..load.decode.masks import decode_mask
from ..plan.plan import BboxParams, KeypointParams, Mix
from .batch import KEYPOINT_COLUMNS

NOT_VISIBLE = 0.0
"""COCO's visibility of a keypoint that is not labelled; also of one that left the picture."""


@dataclass(frozen=True, slots=True)
class AnnotationKinds:
    """The kinds of annotations that the samples of an index have. A batch has a field for each kind."""

    masks: bool = False
    boxes: bool = False
    box_labels: bool = False
    num_keypoints: int = 0
    """Of one instance; 0 for an index without keypoints."""

    @classmethod
    def of(cls, index: Index) -> AnnotationKinds:
        """Find the kinds of an index.

        Raises:
            SourceError: there are keypoints without names, or box labels without boxes.
        """
        table = index.table
        masks, boxes, box_labels, keypoints = (
            table[name].null_count < len(table) for name in ("mask", "boxes", "box_labels", "keypoints")
        )
        if keypoints and not index.keypoint_names:
            raise SourceError(
                "expected the names of the keypoints in an index with keypoints, got none; index again"
            )
        if box_labels and not boxes:
            raise SourceError("expected boxes in an index with box labels, got none; index again")
        return cls(masks, boxes, box_labels, len(index.keypoint_names) if keypoints else 0)

    @property
    def any(self) -> bool:
        """There is at least one kind."""
        return self.masks or self.boxes or self.num_keypoints > 0

    def empty_targets(self) -> dict[str, Any]:
        """Return what a sample without annotations passes to Albumentations."""
        return _targets(self, (1, 1), NO_BOXES, np.arange(0), np.empty((0, 2), np.float32), np.arange(0))


@dataclass(frozen=True, slots=True)
class Annotations:
    """What is annotated of one sample; None where it is not annotated."""

    mask: np.ndarray | None = None
    """uint8 (H, W)."""
    boxes: np.ndarray | None = None
    """float32 (n, 4): x0, y0, x1, y1 in pixels."""
    box_labels: np.ndarray | None = None
    """int64 (n,)."""
    keypoints: np.ndarray | None = None
    """float32 (n, K, 3): x, y in pixels and visibility; an instance for each box, one where there are no boxes."""


NOTHING = Annotations()
NO_BOXES = np.empty((0, BOX_COLUMNS), np.float32)


def check_mix(mix: Mix, kinds: AnnotationKinds) -> None:
    """Check that a mix is defined for the annotations of an index.

    Raises:
        PlanError: MixUp with masks: blended pixels have no one label.
    """
    if mix.kind == "MixUp" and kinds.masks:
        raise PlanError(
            "mix: expected CutMix or none for an index with masks, got MixUp, which blends two images and leaves their "
            "pixels without one label; write kind: CutMix, or leave mix out"
        )


class AnnotationError(ValueError):
    """An annotation that does not fit its picture.

    Args:
        step: ``mask``, ``boxes`` or ``keypoints``.
        reason: in one line.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason


def read_annotations(
    row: Mapping[str, Any], mask: bytes | None, size: Size, kinds: AnnotationKinds
) -> Annotations:
    """Take the annotations of a sample from its row, and decode its mask.

    Args:
        row: of the index.
        mask: the mask's file.
        size: height and width of the upright picture.
        kinds: of the index.

    Raises:
        AnnotationError: one does not fit the picture.
    """
    if not kinds.any:
        return NOTHING
    decoded = None
    if mask is not None:
        picture = Header(row["width"], row["height"], orientation=row["orientation"])
        try:
            decoded = decode_mask(mask, picture)
        except ValueError as error:
            raise AnnotationError("mask", str(error)) from error
        assert decoded.shape == size, (decoded.shape, size)
    boxes = _numbers(row["boxes"], BOX_COLUMNS, "boxes", "x0, y0, x1, y1")
    return Annotations(decoded, boxes, _labels(row, boxes), _keypoints(row, boxes, kinds.num_keypoints))


def _numbers(rows: Any, columns: int, step: str, names: str) -> np.ndarray | None:
    if rows is None:
        return None
    for row in rows:
        if row is None or len(row) != columns or None in row:
            raise AnnotationError(step, f"expected rows of {names}, got {row}; index again")
    return np.asarray(rows, np.float32).reshape(-1, columns)


def _labels(row: Mapping[str, Any], boxes: np.ndarray | None) -> np.ndarray | None:
    if boxes is None:
        return None
    labels = row["box_labels"]
    if labels is None:
        return np.full(len(boxes), -1, np.int64)
    if len(labels) != len(boxes) or None in labels:
        got = "a missing one" if None in labels else str(len(labels))
        raise AnnotationError("boxes", f"expected {len(boxes)} labels of boxes, got {got}; index again")
    return np.asarray(labels, np.int64)


def _keypoints(row: Mapping[str, Any], boxes: np.ndarray | None, num_keypoints: int) -> np.ndarray | None:
    found = _numbers(row["keypoints"], KEYPOINT_COLUMNS, "keypoints", "x, y, visibility")
    if found is None:
        return None
    num_instances = 1 if boxes is None else len(boxes)
    if boxes is None and not len(found):
        num_instances = 0
    if len(found) != num_instances * num_keypoints:
        raise AnnotationError(
            "keypoints",
            f"expected {num_instances} x {num_keypoints} keypoints (instances x names), got {len(found)}; index again",
        )
    if not np.isfinite(found).all():
        raise AnnotationError("keypoints", "expected finite numbers, got others; index again")
    return found.reshape(num_instances, num_keypoints, KEYPOINT_COLUMNS)


def albumentations_targets(
    annotations: Annotations,
    size: Size,
    kinds: AnnotationKinds,
    bbox_params: BboxParams,
    keypoint_params: KeypointParams,
) -> dict[str, Any]:
    """Return what goes through Albumentations' geometry with the picture.

    Every sample of an index with boxes has boxes here, if only none, and likewise keypoints: whether a sample is
    annotated changes nothing in how it is drawn.

    Raises:
        AnnotationError: a box reaches outside the picture and is not to be clipped.
    """
    boxes, box_rows = NO_BOXES, np.arange(0)
    if annotations.boxes is not None:
        box_rows = np.flatnonzero(has_area(annotations.boxes, size))
        boxes = annotations.boxes[box_rows]
        limits = (size[1], size[0], size[1], size[0])
        if not bbox_params.clip and not ((boxes >= 0) & (boxes <= limits)).all():
            raise AnnotationError(
                "boxes",
                f"expected boxes inside {size[1]}x{size[0]} pixels, got {boxes.tolist()}; mend them, or write "
                "bbox_params: {clip: true}",
            )
    points, point_rows = np.empty((0, 2), np.float32), np.arange(0)
    if annotations.keypoints is not None:
        points = annotations.keypoints[..., :2].reshape(-1, 2)
        # Albumentations refuses keypoints outside the picture where it is to remove them later.
        point_rows = (
            np.flatnonzero(_inside(points, size))
            if keypoint_params.remove_invisible
            else np.arange(len(points))
        )
        points = points[point_rows]
    found = _targets(kinds, size, boxes, box_rows, points, point_rows)
    if annotations.mask is not None:
        found["mask"] = annotations.mask
    return found


def _targets(
    kinds: AnnotationKinds,
    size: Size,
    boxes: np.ndarray,
    box_rows: np.ndarray,
    points: np.ndarray,
    point_rows: np.ndarray,
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if kinds.boxes:
        found |= {"bboxes": boxes, "box_rows": box_rows}
    if kinds.num_keypoints:
        seen = _inside(points, size).astype(np.float32)
        found |= {"keypoints": points, "keypoint_rows": point_rows, "keypoint_seen": seen}
    return found


def collect_annotations(before: Annotations, done: Mapping[str, Any]) -> Annotations:
    """Put together what came out of Albumentations' geometry.

    Boxes that it removed take their labels and keypoints with them. Keypoints that it removed are 0, 0, 0; those
    that left the picture, if only for a while, keep their place and are not visible.

    Args:
        before: the annotations that went in, by ``targets_of``.
        done: what came out.
    """
    boxes, labels, instances = None, None, None
    if before.boxes is not None and before.box_labels is not None:
        boxes = np.asarray(done["bboxes"], np.float32).reshape(-1, BOX_COLUMNS)
        instances = np.asarray(done["box_rows"], np.int64).reshape(-1)
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # as float32 some have no area left
        boxes, instances = boxes[kept], instances[kept]
        labels = before.box_labels[instances]
    keypoints = None
    if before.keypoints is not None:
        keypoints = np.zeros_like(before.keypoints)
        flat = keypoints.reshape(-1, KEYPOINT_COLUMNS)
        points = np.asarray(done["keypoints"], np.float32).reshape(-1, 2)
        rows = np.asarray(done["keypoint_rows"], np.int64).reshape(-1)
        seen = np.asarray(done["keypoint_seen"], np.float32).reshape(-1)
        flat[rows, :2] = points
        flat[rows, 2] = np.where(seen > 0, before.keypoints[..., 2].reshape(-1)[rows], NOT_VISIBLE)
        keypoints = keypoints if instances is None else keypoints[instances]
    return Annotations(done.get("mask"), boxes, labels, keypoints)


def collate_annotations(samples: Sequence[Annotations], kinds: AnnotationKinds, size: Size) -> dict[str, Any]:
    """Put the annotations of a batch's images together: the fields of ``Batch`` that an index of these kinds fills.

    Args:
        samples: of the images, in order.
        kinds: of the index.
        size: height and width of the images.
    """
    import torch

    found: dict[str, Any] = {}
    if kinds.masks:
        masks = np.full((len(samples), *size), IGNORED, np.uint8)
        for row, sample in enumerate(samples):
            if sample.mask is not None:
                masks[row] = sample.mask
        found["masks"] = torch.from_numpy(masks)
        found["has_mask"] = np.array([sample.mask is not None for sample in samples], bool)
    if kinds.boxes:
        found["boxes"] = tuple(NO_BOXES.copy() if one.boxes is None else one.boxes for one in samples)
        found["has_boxes"] = np.array([one.boxes is not None for one in samples], bool)
    if kinds.box_labels:
        found["box_labels"] = tuple(
            np.empty(0, np.int64) if one.box_labels is None else one.box_labels for one in samples
        )
    if kinds.num_keypoints:
        found["keypoints"] = tuple(_keypoints_of(one, kinds.num_keypoints) for one in samples)
        found["has_keypoints"] = np.array([one.keypoints is not None for one in samples], bool)
    return found


def _keypoints_of(sample: Annotations, num_keypoints: int) -> np.ndarray:
    """Return the keypoints of a sample; those of boxes that have none are not labelled."""
    if sample.keypoints is not None:
        return sample.keypoints
    num_instances = 0 if sample.boxes is None else len(sample.boxes)
    return np.zeros((num_instances, num_keypoints, KEYPOINT_COLUMNS), np.float32)


def _inside(points: np.ndarray, size: Size) -> np.ndarray:
    return np.asarray(((points >= 0) & (points < (size[1], size[0]))).all(axis=1))
