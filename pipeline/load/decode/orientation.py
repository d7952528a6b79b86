"""EXIF orientation: decoders return pixels as stored, and only this module applies the orientation.

Orientation is read once, when the index is built. ``upright`` rotates the pixels; ``to_stored`` converts a decode plan
of the upright image to one of the stored image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from ...geometry import FIRST_TRANSPOSED, FLIPPED_X, FLIPPED_Y, Region, Size
from .plan import DecodePlan

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def oriented_size(size: Size, orientation: int) -> Size:
    """Convert height and width between the stored and the upright image, in either direction."""
    return size[::-1] if orientation >= FIRST_TRANSPOSED else size


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the orientation to stored pixels, HWC or HW; returns the same array for orientation 1, else a new one."""
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else turn(image)


def stored_region(region: Region, size: Size, orientation: int) -> Region:
    """Convert a region of the upright image to one of the stored image.

    Args:
        region: of the upright image.
        size: height and width of the upright image.
        orientation: EXIF 1..8.
    """
    if orientation == 1:
        return region
    y0, x0, y1, x1 = region.y0, region.x0, region.y1, region.x1
    if orientation in FLIPPED_X:
        x0, x1 = size[1] - x1, size[1] - x0
    if orientation in FLIPPED_Y:
        y0, y1 = size[0] - y1, size[0] - y0
    return Region(x0, y0, x1, y1) if orientation >= FIRST_TRANSPOSED else Region(y0, x0, y1, x1)


def to_stored(decoding: DecodePlan, size: Size, orientation: int) -> DecodePlan:
    """Convert a decode plan of the upright image to one of the stored image, resampling included."""
    if orientation == 1:
        return decoding
    resampling = decoding.resampling
    if resampling is not None:
        resampling = replace(resampling, size=oriented_size(resampling.size, orientation))
    return replace(decoding, region=stored_region(decoding.region, size, orientation), resampling=resampling)
