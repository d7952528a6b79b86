"""Pictures as they lie in a shard: raw pixels, or JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..policy.sizes import Size


@dataclass(frozen=True, slots=True)
class Packed:
    """A picture as it is kept."""

    data: np.ndarray
    """uint8, one dimension; read-only where it lies in a shard."""
    size: Size
    """Height and width."""


def pack(image: np.ndarray, quality: int | None) -> Packed:
    """Pack uint8 HWC RGB pixels; without a ``quality`` they stay as they are and may share memory."""
    height, width = image.shape[:2]
    if quality is None:
        return Packed(np.ascontiguousarray(image).reshape(-1), (height, width))
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done, "OpenCV encodes every uint8 picture"
    return Packed(data.reshape(-1), (height, width))


def unpack(packed: Packed, quality: int | None) -> np.ndarray:
    """Return uint8 HWC RGB pixels; raw ones share memory with what is packed."""
    if quality is None:
        return packed.data.reshape(*packed.size, 3)
    return np.asarray(cv2.imdecode(packed.data, cv2.IMREAD_COLOR_RGB))
