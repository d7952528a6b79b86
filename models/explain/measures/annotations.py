"""Maps against annotations: share of the evidence inside boxes or masks, and the pointing game.

The pointing game (Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.1) counts peaks on
the object. Published figures allow 15 pixels around it; ours allow none unless ``tolerance`` says so. The centre of the
image is its baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .upsampling import Size, cell_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

Boxes = Sequence["NDArray[Any] | None"]
"""Per image (n, 4 or more): x0, y0, x1, y1 in pixels; None or no rows where there are none."""
IGNORED = 255
"""Pixels of a mask without annotation."""


def box_masks(boxes: Boxes, image_size: Size) -> NDArray[np.bool_]:
    """Return the union of each image's boxes (N, H, W), by centres of pixels."""
    masks = np.zeros((len(boxes), *image_size), np.bool_)
    across, down = np.arange(image_size[1]) + 0.5, np.arange(image_size[0]) + 0.5
    for number, own in enumerate(boxes):
        for x0, y0, x1, y1 in [] if own is None else own[:, :4].tolist():
            columns, rows = (x0 <= across) & (across <= x1), (y0 <= down) & (down <= y1)
            masks[number] |= rows[:, None] & columns
    return masks


def object_masks(masks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the annotated objects of label masks: every label but 0, the background, and 255."""
    return np.asarray((masks != 0) & (masks != IGNORED))


def inside_shares(maps: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the share (N,) of each map's evidence inside its own mask; NaN without evidence.

    It is the energy-based pointing game (Wang et al., "Score-CAM", CVPR Workshops 2020, section 4.3) for boxes, and the
    relevance mass accuracy (Arras et al., "CLEVR-XAI", Information Fusion 2022) for masks.

    Args:
        maps: (N, h, w), non-negative.
        masks: (N, H, W).
    """
    map_size = int(maps.shape[1]), int(maps.shape[2])
    inside = (maps * cell_weights(masks, map_size)).sum(axis=(1, 2))
    mass = (maps * cell_weights(np.ones(masks.shape[1:]), map_size)).sum(axis=(1, 2))
    return np.asarray(np.clip(inside / np.where(mass > 0, mass, np.nan), 0, 1), np.float64)


def points_in_boxes(
    x: NDArray[Any], y: NDArray[Any], boxes: Boxes, tolerance: float = 0.0
) -> NDArray[np.bool_]:
    """Return whether each image's point (N,) is in one of its boxes, or at most ``tolerance`` pixels from it."""
    found = np.zeros(len(boxes), np.bool_)
    for row, own in enumerate(boxes):
        if own is None or not len(own):
            continue
        x0, y0, x1, y1 = own[:, :4].T
        away_x = np.maximum(np.maximum(x0 - x[row], x[row] - x1), 0)
        away_y = np.maximum(np.maximum(y0 - y[row], y[row] - y1), 0)
        found[row] = bool((np.hypot(away_x, away_y) <= tolerance).any())
    return found


def points_in_masks(
    x: NDArray[Any], y: NDArray[Any], masks: NDArray[np.bool_], tolerance: float = 0.0
) -> NDArray[np.bool_]:
    """Return whether each image's point (N,) is on its mask (N, H, W), or at most ``tolerance`` pixels from it."""
    height, width = masks.shape[1:]
    found = np.zeros(len(masks), np.bool_)
    for row in np.flatnonzero(np.isfinite(x) & np.isfinite(y) & masks.any(axis=(1, 2))).tolist():
        if not tolerance:
            found[row] = masks[row, min(int(y[row]), height - 1), min(int(x[row]), width - 1)]
            continue
        down, across = np.nonzero(masks[row])
        found[row] = bool((np.hypot(across + 0.5 - x[row], down + 0.5 - y[row]) <= tolerance).any())
    return found
