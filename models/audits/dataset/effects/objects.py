"""Annotated objects of an image as points: cells of a box, pixels of a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .....pipeline.formats.mask_headers import IGNORED
from .....pipeline.index.boxes import has_area
from .traced_points import lattice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .....pipeline.batch.annotations import Annotations
    from .....pipeline.geometry import Size

OBJECT_SIDE = 16
"""Rows and columns of points in a box; a mask has as many points."""
MAX_OBJECTS = 64
"""Boxes, and labels of the mask, of an image; more are left out."""
BACKGROUND = 0
"""Label of a mask that is no object."""


@dataclass(frozen=True)
class AnnotatedObject:
    """A box, or the pixels of one label of a mask."""

    number: int
    """Class of the box, or label of the mask; -1 for a box without a class."""
    is_mask: bool
    points: NDArray[np.float64]
    """x and y (N, 2)."""
    side: float
    """Root of its area, in pixels."""


def objects_of(annotations: Annotations, size: Size) -> list[AnnotatedObject]:
    """Return the objects of an image.

    Args:
        annotations: of the image.
        size: its height and width.
    """
    found = []
    boxes, labels = annotations.boxes, annotations.box_labels
    if boxes is not None and labels is not None:
        limits = np.array([size[1], size[0]] * 2)
        for row in np.flatnonzero(has_area(boxes, size))[:MAX_OBJECTS].tolist():
            x0, y0, x1, y1 = np.clip(boxes[row].astype(np.float64), 0, limits).tolist()
            width, height = x1 - x0, y1 - y0
            points = lattice(width, height, OBJECT_SIDE) + np.array([x0, y0])
            found.append(AnnotatedObject(int(labels[row]), False, points, float(np.sqrt(width * height))))
    return found if annotations.mask is None else found + _mask_objects(annotations.mask)


def _mask_objects(mask: NDArray[np.uint8]) -> list[AnnotatedObject]:
    labels = [label for label in np.unique(mask).tolist() if label not in (BACKGROUND, IGNORED)]
    found = []
    for label in labels[:MAX_OBJECTS]:
        places = np.flatnonzero(mask == label)
        spread = np.linspace(0, len(places) - 1, min(len(places), OBJECT_SIDE**2)).astype(np.int64)
        y, x = np.divmod(places[spread], mask.shape[1])
        points = np.stack([x, y], axis=1) + 0.5
        found.append(AnnotatedObject(label, True, points, float(np.sqrt(len(places)))))
    return found
