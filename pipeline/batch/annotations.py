"""Masks, boxes and keypoints of a sample: read from its index row, transformed with its pixels, collated.

All of them refer to the upright image, are checked against it when the sample is read, and go through the same
geometric transforms as its pixels. Boxes without an area inside the image are dropped; any other misfit quarantines
the sample, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import torch

NOT_VISIBLE = 0.0
"""COCO's visibility of an unlabelled keypoint, also used for one that left the image."""


@dataclass(frozen=True, slots=True)
class AnnotationKinds:
    """Kinds of annotations in an index. A batch has a field for each kind."""

    masks: bool = False
    boxes: bool = False
    box_labels: bool = False
    num_keypoints: int = 0
    """Keypoints per instance; 0 for an index without keypoints."""
    num_set_classes: int = 0
    """Classes of an index whose images have sets of labels; 0 for one class per image."""

    @classmethod
    def of(cls, index: Index) -> AnnotationKinds:
        """Return the kinds of annotations in an index.

        Raises:
            SourceError: the index has keypoints without names, or box labels without boxes.
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
        num_classes = len(index.classes) if index.is_multi_label else 0
        return cls(masks, boxes, box_labels, len(index.keypoint_names) if keypoints else 0, num_classes)

    @property
    def any(self) -> bool:
        """Whether there is any annotation that moves with the pixels."""
        return self.masks or self.boxes or self.num_keypoints > 0

    def empty_targets(self) -> dict[str, Any]:
        """Return the Albumentations targets of a sample without annotations."""
        return _targets(self, (1, 1), NO_BOXES, np.arange(0), np.empty((0, 2), np.float32), np.arange(0))


@dataclass(frozen=True, slots=True)
class Annotations:
    """Annotations of one sample; None for a kind that is not annotated."""

    mask: np.ndarray | None = None
    """uint8 (H, W)."""
    boxes: np.ndarray | None = None
    """float32 (n, 4): x0, y0, x1, y1 in pixels."""
    box_labels: np.ndarray | None = None
    """int64 (n,)."""
    keypoints: np.ndarray | None = None
    """float32 (n, K, 3): x, y in pixels and visibility; one instance per box, or a single one without boxes."""


NO_ANNOTATIONS = Annotations()
NO_BOXES = np.empty((0, BOX_COLUMNS), np.float32)


def check_mix(mix: Mix, kinds: AnnotationKinds) -> None:
    """Check that a mix supports the annotations of an index.

    Raises:
        PlanError: MixUp with masks, as a blended pixel has no single label.
    """
    if mix.kind == "MixUp" and kinds.masks:
        raise PlanError(
            "mix: expected CutMix or none for an index with masks, got MixUp, whose blended pixels have no single label; "
            "write kind: CutMix, or leave mix out"
        )


class AnnotationError(ValueError):
    """An annotation that does not fit its image.

    Args:
        step: ``mask``, ``boxes`` or ``keypoints``.
        reason: one line.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason


def read_annotations(
    row: Mapping[str, Any], mask: bytes | None, size: Size, kinds: AnnotationKinds
) -> Annotations:
    """Read the annotations of a sample from its index row, and decode its mask.

    Args:
        row: index row.
        mask: content of the mask file.
        size: height and width of the upright image.
        kinds: kinds of annotations in the index.

    Raises:
        AnnotationError: an annotation does not fit the image.
    """
    if not kinds.any:
        return NO_ANNOTATIONS
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
    """Return the targets that Albumentations transforms together with the image.

    In an index with boxes every sample has boxes here, possibly empty, and likewise keypoints, so that parameters are
    sampled the same whether a sample is annotated or not.

    Raises:
        AnnotationError: a box reaches outside the image and the plan does not clip boxes.
    """
    if not kinds.any:
        return {}
    boxes, box_rows = NO_BOXES, np.arange(0)
    if annotations.boxes is not None:
        box_rows = np.flatnonzero(has_area(annotations.boxes, size))
        boxes = annotations.boxes[box_rows]
        limits = (size[1], size[0], size[1], size[0])
        if not bbox_params.clip and not ((boxes >= 0) & (boxes <= limits)).all():
            raise AnnotationError(
                "boxes",
                f"expected boxes inside {size[1]}x{size[0]} pixels, got {boxes.tolist()}; correct them, or write "
                "bbox_params: {clip: true}",
            )
    points, point_rows = np.empty((0, 2), np.float32), np.arange(0)
    if annotations.keypoints is not None:
        points = annotations.keypoints[..., :2].reshape(-1, 2)
        # With remove_invisible, Albumentations rejects keypoints that are outside the image from the start.
        point_rows = (
            np.flatnonzero(inside(points, (0, 0), size[::-1]))
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
        seen = inside(points, (0, 0), size[::-1]).astype(np.float32)
        found |= {"keypoints": points, "keypoint_rows": point_rows, "keypoint_seen": seen}
    return found


def collect_annotations(before: Annotations, done: Mapping[str, Any]) -> Annotations:
    """Convert Albumentations' result back to annotations.

    Labels and keypoints of removed boxes are removed as well. Removed keypoints are 0, 0, 0; those that left the image,
    even temporarily, keep their row and get visibility 0.

    Args:
        before: annotations passed in by ``albumentations_targets``.
        done: result of Albumentations.
    """
    boxes, labels, instances = None, None, None
    if before.boxes is not None and before.box_labels is not None:
        boxes = np.asarray(done["bboxes"], np.float32).reshape(-1, BOX_COLUMNS)
        instances = np.asarray(done["box_rows"], np.int64).reshape(-1)
        keep = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # float32 rounding may leave no area
        boxes, instances = boxes[keep], instances[keep]
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
    """Collate the annotations of a batch into the fields of ``Batch`` for these kinds.

    Args:
        samples: annotations of the images, in order.
        kinds: kinds of annotations in the index.
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


def collate_label_sets(label_sets: Sequence[Sequence[int] | None], num_classes: int) -> torch.Tensor:
    """Return the label sets of a batch as int8 (N, classes), see ``Batch.label_sets``.

    Args:
        label_sets: class numbers of each image; None for an unlabelled one.
        num_classes: number of classes.
    """
    import torch

    found = torch.zeros(len(label_sets), num_classes, dtype=torch.int8)
    for row, labels in enumerate(label_sets):
        if labels is None:
            found[row] = -1
        elif labels:
            found[row, list(labels)] = 1
    return found


def _keypoints_of(sample: Annotations, num_keypoints: int) -> np.ndarray:
    """Return the keypoints of a sample; unlabelled (zeros) for boxes without keypoints."""
    if sample.keypoints is not None:
        return sample.keypoints
    num_instances = 0 if sample.boxes is None else len(sample.boxes)
    return np.zeros((num_instances, num_keypoints, KEYPOINT_COLUMNS), np.float32)


def inside(points: np.ndarray, first: tuple[int, int], last: tuple[int, int]) -> np.ndarray:
    """Return which points (..., 2) lie in a rectangle from one corner to another, which is exclusive."""
    return np.asarray(((points >= first) & (points < last)).all(axis=-1))
