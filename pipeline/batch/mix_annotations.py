"""Annotations of mixed images; each image is mixed with the previous one in the batch.

CutMix pastes a rectangle of the previous image and of its mask. Boxes of the base image shrink to the bounds of their
visible part, boxes of the pasted image are clipped to the rectangle, and the plan's ``bbox_params`` drop those of which
too little remains; completely covered boxes are always dropped. Covered keypoints of the base image, and keypoints of
the pasted image outside the rectangle, get visibility 0. MixUp keeps the boxes and keypoints of both images; it does not
support masks, see ``check_mix``.

Boxes of the base image come first. A mixed image has boxes only if both images are annotated with boxes; otherwise
unannotated objects would be learned as background. Masks and keypoints mark unannotated pixels and points individually,
so that one annotated image is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..plan.plan import BboxParams
from .annotations import inside
from .batch import Batch

_NO_BOXES = np.empty((0, 4), np.float32)
_NO_LABELS = np.empty(0, np.int64)
_NO_KEYPOINTS = np.empty((0, 0, 3), np.float32)

KeptBoxes = tuple[np.ndarray, np.ndarray]
"""Boxes after mixing, and their indices before mixing."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Rectangle in pixels; x1 and y1 are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def area(self) -> int:
        """Number of pixels; may be 0."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First and last corner: x0, y0 and x1, y1."""
        return (self.x0, self.y0), (self.x1, self.y1)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)


@dataclass(frozen=True, slots=True)
class _Visibility:
    """Functions that select the visible boxes and keypoints of one of two mixed images."""

    boxes: Callable[[np.ndarray], KeptBoxes]
    hidden: Callable[[np.ndarray], np.ndarray]
    """From points (..., 2) to bool (...): True where hidden."""


def mixup_annotations(batch: Batch) -> Batch:
    """Keep the boxes and keypoints of both images, for MixUp."""
    whole = _Visibility(
        lambda boxes: (boxes, np.arange(len(boxes))), lambda points: np.zeros(points.shape[:-1], bool)
    )
    return _merged(batch, whole, whole)


def cutmix_annotations(batch: Batch, rectangle: Rectangle, bbox_params: BboxParams) -> Batch:
    """Paste the previous image's mask into a rectangle, and keep visible boxes and keypoints, for CutMix."""
    if not rectangle.area:
        return batch
    if batch.masks is not None and batch.has_mask is not None:
        masks = batch.masks.clone()
        masks[:, *rectangle.slices] = batch.masks.roll(1, dims=0)[:, *rectangle.slices]
        batch = replace(batch, masks=masks, has_mask=batch.has_mask | np.roll(batch.has_mask, 1))
    base = _Visibility(
        lambda boxes: _uncovered(boxes, rectangle, bbox_params),
        lambda points: inside(points, *rectangle.corners),
    )
    pasted = _Visibility(
        lambda boxes: _clipped(boxes, rectangle, bbox_params),
        lambda points: ~inside(points, *rectangle.corners),
    )
    return _merged(batch, base, pasted)


def _merged(batch: Batch, base: _Visibility, pasted: _Visibility) -> Batch:
    """Join the visible annotations of each image and the previous one."""
    pairs = [(_visible(batch, row, base), _visible(batch, row - 1, pasted)) for row in range(len(batch))]
    found = batch
    if batch.boxes is not None and batch.has_boxes is not None:
        annotated = batch.has_boxes & np.roll(batch.has_boxes, 1)
        ends = [None if both else 0 for both in annotated.tolist()]
        joined = zip(pairs, ends, strict=True)
        boxes, labels = zip(
            *(
                (np.concatenate([one.boxes, two.boxes])[:end], np.concatenate([one.labels, two.labels])[:end])
                for (one, two), end in joined
            ),
            strict=True,
        )
        found = replace(found, boxes=boxes, has_boxes=annotated)
        if batch.box_labels is not None:
            found = replace(found, box_labels=labels)
    if batch.keypoints is not None and batch.has_keypoints is not None:
        keypoints = tuple(np.concatenate([one.keypoints, two.keypoints]) for one, two in pairs)
        either = batch.has_keypoints | np.roll(batch.has_keypoints, 1)
        found = replace(found, keypoints=keypoints, has_keypoints=either)
    return found


@dataclass(frozen=True, slots=True)
class _VisibleAnnotations:
    """Visible annotations of one image in a mixed image; empty for kinds that the index lacks."""

    boxes: np.ndarray
    labels: np.ndarray
    keypoints: np.ndarray


def _visible(batch: Batch, row: int, rule: _Visibility) -> _VisibleAnnotations:
    boxes, numbers = _NO_BOXES, np.arange(0)
    if batch.boxes is not None:
        boxes, numbers = rule.boxes(batch.boxes[row])
    labels = _NO_LABELS if batch.box_labels is None else batch.box_labels[row][numbers]
    keypoints = _NO_KEYPOINTS
    if batch.keypoints is not None:
        keypoints = batch.keypoints[row].copy()
        keypoints[rule.hidden(keypoints[..., :2]), 2] = 0
        of_boxes = batch.has_boxes is not None and batch.has_boxes[row]
        # Without boxes, fully hidden instances are dropped.
        keypoints = keypoints[numbers if of_boxes else (keypoints[..., 2] > 0).any(axis=1)]
    return _VisibleAnnotations(boxes, labels, keypoints)


def _uncovered(boxes: np.ndarray, rectangle: Rectangle, params: BboxParams) -> KeptBoxes:
    """Shrink boxes to the bounds of the part not covered by a rectangle."""
    area = _areas(boxes)
    left = area - _areas(_cut(boxes, rectangle))
    x0, y0, x1, y1 = boxes.T.copy()
    across = (rectangle.x0 <= x0) & (x1 <= rectangle.x1)
    down = (rectangle.y0 <= y0) & (y1 <= rectangle.y1)
    shrunk = np.stack(
        [
            np.where(down & (rectangle.x0 <= x0), np.maximum(x0, rectangle.x1), x0),
            np.where(across & (rectangle.y0 <= y0), np.maximum(y0, rectangle.y1), y0),
            np.where(down & (x1 <= rectangle.x1), np.minimum(x1, rectangle.x0), x1),
            np.where(across & (y1 <= rectangle.y1), np.minimum(y1, rectangle.y0), y1),
        ],
        axis=1,
    ).astype(np.float32)
    return _large_enough(shrunk, left, area, params)


def _clipped(boxes: np.ndarray, rectangle: Rectangle, params: BboxParams) -> KeptBoxes:
    """Clip boxes to a rectangle."""
    cut = _cut(boxes, rectangle)
    return _large_enough(cut, _areas(cut), _areas(boxes), params)


def _cut(boxes: np.ndarray, rectangle: Rectangle) -> np.ndarray:
    parts = [np.clip(boxes[:, :2], *rectangle.corners), np.clip(boxes[:, 2:], *rectangle.corners)]
    return np.asarray(np.concatenate(parts, axis=1), np.float32)


def _areas(boxes: np.ndarray) -> np.ndarray:
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return np.asarray(sides[:, 0] * sides[:, 1])


def _large_enough(boxes: np.ndarray, left: np.ndarray, area: np.ndarray, params: BboxParams) -> KeptBoxes:
    """Keep boxes that are fully or sufficiently visible; ``left`` and ``area`` are their visible and full areas."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    keep = (left > 0) & (width > 0) & (height > 0)
    keep &= (left >= params.min_area) & (left >= params.min_visibility * area)
    keep &= (width >= params.min_width) & (height >= params.min_height)
    if params.max_accept_ratio is not None:
        keep &= np.maximum(width, height) <= params.max_accept_ratio * np.minimum(width, height)
    numbers = np.flatnonzero(keep | (left == area))
    return boxes[numbers], numbers
