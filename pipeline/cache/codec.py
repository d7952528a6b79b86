"""Encoding of cached images: raw pixels or JPEG."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ..geometry import Size

if TYPE_CHECKING:
    from .shard import Shard

CHANNELS = 3
JPEG_SIDE = 65_500
"""Longest side that libjpeg can write."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """An encoded image in the cache."""

    data: np.ndarray
    """uint8, one dimension; read-only if it comes from a shard."""
    size: Size
    """Height and width."""
    shard: Shard | None = field(default=None, repr=False)
    """The shard it comes from, if any."""


def encode_image(image: np.ndarray, quality: int | None) -> CachedImage | None:
    """Encode uint8 HWC RGB pixels as JPEG, or as raw pixels, possibly sharing memory, if ``quality`` is None.

    Returns:
        None for an image too large for a JPEG.
    """
    height, width = image.shape[:2]
    if quality is None:
        return CachedImage(np.ascontiguousarray(image).reshape(-1), (height, width))
    if max(height, width) > JPEG_SIDE:
        return None
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes every uint8 picture"
    return CachedImage(data.reshape(-1), (height, width))


def decode_image(packed: CachedImage, quality: int | None) -> np.ndarray | None:
    """Decode to uint8 HWC RGB pixels; raw pixels share memory with the cached image.

    Returns:
        None if the data are not an image of the stated size.
    """
    if quality is None:
        fits = len(packed.data) == packed.size[0] * packed.size[1] * CHANNELS
        return packed.data.reshape(*packed.size, CHANNELS) if fits else None
    try:
        image = cv2.imdecode(packed.data, cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # sizes that OpenCV rejects
        return None
    return image if image is not None and image.shape == (*packed.size, CHANNELS) else None
