"""Columns of an audit's records: where the evidence of each map lies, in numbers with their baselines.

All are exact for the map upsampled to the image, and null where there is nothing to measure: an empty map, one that is not
finite, or an image without annotation. Shares are of the positive evidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from .annotations import Boxes, box_masks, inside_shares, object_masks, points_in_boxes, points_in_masks
from .distribution import centres_of_mass, concentrations, entropies, find_usable, peaks
from .regions import PLACES, fixed_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .upsampling import Size

_FLOATS = (
    "border_mass",  # along the edge, a tenth of each side wide
    *(f"corner_{place}" for place in PLACES),  # a quarter of each side
    *(f"quadrant_{place}" for place in PLACES),
    "centre_x",  # centre of mass, 0 (left) to 1
    "centre_y",  # 0 (top) to 1
    "entropy",  # of the cells, nats
    "concentration",  # 0 (uniform) to 1 (one cell)
    "negative_share",  # evidence against the class: its share of all absolute values
    "box_share",  # inside the boxes; null without boxes
    "box_cover",  # fraction of the image that the boxes cover, the baseline of box_share
    "mask_share",
    "mask_cover",
    "peak_x",  # pixels; null if tied
    "peak_y",
)
_FLAGS = (
    "hit",  # the peak is in a box, or on the mask of an image without boxes; false for empty and tied maps
    "centre_hit",  # so is the centre of the image: the baseline of hit
    "blank",  # no positive evidence; null if the map is not finite
    "tied",  # several cells hold the largest value; null if the map is not finite
    "no_map",  # not finite
)
EVIDENCE_FIELDS = tuple(
    [pa.field(name, pa.float32()) for name in _FLOATS] + [pa.field(name, pa.bool_()) for name in _FLAGS]
)
"""Arrow fields of ``evidence_columns``, in their order."""


def evidence_columns(
    maps_signed: NDArray[Any],
    image_size: Size,
    boxes: Boxes | None = None,
    masks: NDArray[np.uint8] | None = None,
    *,
    scores: NDArray[Any] | None = None,
    tolerance: float = 0.0,
) -> dict[str, pa.Array]:
    """Measure maps; returns a column for each of `EVIDENCE_FIELDS`.

    Args:
        maps_signed: (N, h, w) before the ReLU, in any unit; rows of NaN for images without a map.
        image_size: height and width in pixels of the images, to which boxes and masks refer.
        boxes: per image; None if the data set has none.
        masks: labels (N, H, W), as in a batch; None if the data set has none.
        scores: logits of the explained classes (N,), which set the scale below which a map is empty.
        tolerance: pixels around boxes and masks within which a peak, or the centre of the image, is a hit.
    """
    usable = find_usable(maps_signed, scores)
    has_evidence, has_peak = usable.measurable, usable.measurable & ~usable.tied
    signed = np.where(usable.finite[:, None, None], maps_signed, 0).astype(np.float64)
    maps = np.maximum(signed, 0) * has_evidence[:, None, None]
    x, y = peaks(maps, image_size)
    centre_x, centre_y = centres_of_mass(maps)
    values: dict[str, NDArray[Any]] = fixed_shares(maps, image_size) | {
        "centre_x": centre_x,
        "centre_y": centre_y,
        "entropy": entropies(maps),
        "concentration": concentrations(maps),
        "negative_share": _negative_shares(signed),
        "peak_x": np.where(has_peak, x, np.nan),
        "peak_y": np.where(has_peak, y, np.nan),
        **_annotation_columns(maps, image_size, boxes, masks),
    }
    hit, centre_hit, annotated = _hits(x, y, image_size, boxes, masks, tolerance)
    columns = {name: pa.array(values[name], pa.float32(), mask=np.isnan(values[name])) for name in _FLOATS}
    flags = {
        "hit": (hit & has_peak, annotated & usable.finite),
        "centre_hit": (centre_hit, annotated),
        "blank": (usable.empty, usable.finite),
        "tied": (usable.tied, usable.finite),
        "no_map": (~usable.finite, np.ones(len(maps), np.bool_)),
    }
    return columns | {name: pa.array(flags[name][0], pa.bool_(), mask=~flags[name][1]) for name in _FLAGS}


def _negative_shares(signed: NDArray[np.float64]) -> NDArray[np.float64]:
    against, absolute = np.maximum(-signed, 0).sum(axis=(1, 2)), np.abs(signed).sum(axis=(1, 2))
    return np.asarray(against / np.where(absolute > 0, absolute, np.nan))


def _annotation_columns(
    maps: NDArray[Any], image_size: Size, boxes: Boxes | None, masks: NDArray[np.uint8] | None
) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for name, found in (
        ("box", None if boxes is None else box_masks(boxes, image_size)),
        ("mask", None if masks is None else object_masks(masks)),
    ):
        share, cover = np.full(len(maps), np.nan), np.full(len(maps), np.nan)
        if found is not None:
            rows = np.flatnonzero(found.any(axis=(1, 2)))
            share[rows] = inside_shares(maps[rows], found[rows])
            cover[rows] = found[rows].mean(axis=(1, 2))
        columns[f"{name}_share"], columns[f"{name}_cover"] = share, cover
    return columns


def _hits(
    x: NDArray[Any],
    y: NDArray[Any],
    image_size: Size,
    boxes: Boxes | None,
    masks: NDArray[np.uint8] | None,
    tolerance: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Return whether peak and centre of each image are on its object, and whether it is annotated, (N,) each."""
    num = len(x)
    middle_x, middle_y = np.full(num, image_size[1] / 2), np.full(num, image_size[0] / 2)
    hit, centre_hit, annotated = (np.zeros(num, np.bool_) for _ in range(3))
    if masks is not None:
        found = object_masks(masks)
        annotated |= found.any(axis=(1, 2))
        hit |= points_in_masks(x, y, found, tolerance)
        centre_hit |= points_in_masks(middle_x, middle_y, found, tolerance)
    if boxes is not None:
        boxed = np.array([own is not None and len(own) > 0 for own in boxes], np.bool_)
        hit = np.where(boxed, points_in_boxes(x, y, boxes, tolerance), hit)
        centre_hit = np.where(boxed, points_in_boxes(middle_x, middle_y, boxes, tolerance), centre_hit)
        annotated |= boxed
    return hit, centre_hit, annotated
