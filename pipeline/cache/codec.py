"""Pictures as they lie in a shard: raw pixels, or JPEG."""

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
"""The longest side that libjpeg writes."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A picture as it is kept."""

    data: np.ndarray
    """uint8, one dimension; read-only where it lies in a shard."""
    size: Size
    """Height and width."""
    shard: Shard | None = field(default=None, repr=False)
    """Where it lies, if in a shard."""


def encode_image(image: np.ndarray, quality: int | None) -> CachedImage | None:
    """Pack uint8 HWC RGB pixels; without a ``quality`` they stay as they are and may share memory.

    Returns:
        None for a picture that is too long for a JPEG.
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
    """Return uint8 HWC RGB pixels; raw ones share memory with what is packed.

    Returns:
        None for what is no picture of the stated size.
    """
    if quality is None:
        fits = len(packed.data) == packed.size[0] * packed.size[1] * CHANNELS
        return packed.data.reshape(*packed.size, CHANNELS) if fits else None
    try:
        image = cv2.imdecode(packed.data, cv2.IMREAD_COLOR_RGB)
    except cv2.error:  # of sizes that OpenCV refuses
        return None
    return image if image is not None and image.shape == (*packed.size, CHANNELS) else None
