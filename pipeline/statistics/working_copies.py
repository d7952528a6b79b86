"""Parts and smaller copies of an image on which its measures are taken, so that their cost hardly grows with its size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORKING_SIDE = 128
"""Longest side in pixels of the gray working copy."""
TILE_SIDE = 64
"""Side in pixels of the tiles at full resolution."""
TILES_PER_AXIS = 3
TILE_STEP = 8
"""Tiles begin at multiples of the blocks of a JPEG."""
MAX_SAMPLED_PIXELS = 1 << 15
"""Images with more are sampled: every third, fifth, ... row."""


@dataclass(frozen=True, slots=True)
class WorkingCopies:
    """Parts and smaller copies of an image, made once for all measures."""

    sampled_rows: NDArray[np.uint8]
    """RGB: all rows of a small image, else evenly spaced ones with at most ``MAX_SAMPLED_PIXELS``, but at least one."""
    tiles: NDArray[np.uint8]
    """Luma (ITU-R BT.601) at full resolution, (N, h, w): up to 3x3 tiles of 64 px a side, evenly spaced from edge to edge;
    they overlap in images of less than 192 px, and are shorter in those of less than 64 px."""
    color: NDArray[np.uint8]
    """RGB, halved by the mean of 2x2 pixels until the longest side is less than ``WORKING_SIDE``."""
    halved_gray: NDArray[np.uint8]
    """Luma, halved by the mean of 2x2 pixels until the longest side is less than ``2 * WORKING_SIDE``."""
    working_gray: NDArray[np.uint8]
    """The same, resized linearly to a longest side of ``WORKING_SIDE``; smaller images keep their size."""


def make_working_copies(image: NDArray[np.uint8]) -> WorkingCopies:
    """Make the parts and smaller copies of a contiguous RGB image (h, w, 3)."""
    height, width = image.shape[:2]
    color = halve_to(image, 2 * WORKING_SIDE)
    gray = np.asarray(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), np.uint8)
    shrink = min(1.0, WORKING_SIDE / max(height, width))
    size = [
        max(1, min(small, round(full * shrink)))
        for small, full in zip(gray.shape, (height, width), strict=True)
    ]
    step = -(-height * width // MAX_SAMPLED_PIXELS) | 1
    return WorkingCopies(
        sampled_rows=image[min(step // 2, height - 1) :: step],
        tiles=_tiles(image),
        color=halve_to(color, WORKING_SIDE),
        halved_gray=gray,
        working_gray=np.asarray(cv2.resize(gray, size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8),
    )


def halve_to(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Halve an image by the mean of 2x2 pixels until its sides are less than a length; an odd last row or column is cut off."""
    while max(image.shape[:2]) >= side:
        height, width = (max(1, length // 2) for length in image.shape[:2])
        image = shrink_to(image[: 2 * height, : 2 * width], width=width, height=height)
    return image


def shrink_to(image: NDArray[np.uint8], *, width: int, height: int) -> NDArray[np.uint8]:
    """Resize by the mean over the area of each pixel."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _tiles(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, columns = (_parts(side) for side in image.shape[:2])
    height, width = (parts[0].stop - parts[0].start for parts in (rows, columns))
    tiles = np.empty((len(rows) * len(columns), height, width), np.uint8)
    for number, (down, across) in enumerate(product(rows, columns)):
        cv2.cvtColor(image[down, across], cv2.COLOR_RGB2GRAY, dst=tiles[number])
    return tiles


def _parts(side: int) -> list[slice]:
    """Return the ranges of the tiles along an axis."""
    length = min(side, TILE_SIDE)
    count = min(TILES_PER_AXIS, -(-side // TILE_SIDE))
    free = side - length
    starts = [free * number // max(1, count - 1) // TILE_STEP * TILE_STEP for number in range(count)]
    return [slice(start, start + length) for start in starts]
