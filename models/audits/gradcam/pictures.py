"""Images of the report: overlays, mean maps and thumbnails as data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THUMBNAIL = 448
"""Longest side of an image in the report, in pixels."""

HEAT_SIDE = 64
"""Longest side of a map in the report, in pixels; browsers enlarge it smoothly."""
HEAT_LEVELS = 64
COLOURS = "inferno"
"""Perceptually uniform colour map; dark means no evidence and is drawn transparent."""


def normalize_map(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Divide a map by its maximum; an empty map stays zero."""
    high = float(small.max())
    return np.asarray(small / high if high > 0 else np.zeros_like(small), dtype=np.float32)


def upsample_map(small: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Upsample a map bilinearly with half-pixel centres, as torch does with ``align_corners=False``."""
    import cv2

    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def apply_colormap(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Apply the colour map to values in 0..1: (H, W) -> uint8 (H, W, 3)."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](heat)[..., :3] * 255 + 0.5).astype(np.uint8)


def overlay(image: NDArray[np.uint8], small: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Overlay a map on its image, with opacity increasing with the map's value.

    Args:
        image: uint8 (H, W, 3), input of the model.
        small: map of any size, non-negative; normalised by its maximum.
    """
    height, width = image.shape[:2]
    heat = normalize_map(upsample_map(normalize_map(small), height, width))
    opacity = 0.78 * heat[..., None] ** 0.8
    mixed = (1 - opacity) * image + opacity * apply_colormap(0.12 + 0.88 * heat)
    return np.asarray(mixed + 0.5).astype(np.uint8)


def mean_map(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average maps (N, h, w) that are not empty, each divided by its maximum."""
    return np.asarray(np.mean(maps / maps.max(axis=(1, 2), keepdims=True), axis=0), dtype=np.float32)


def heat_picture(small: NDArray[np.float32]) -> str:
    """Return a map with values in 0..1, upsampled and coloured, as a PNG data URI."""
    return _heat_uri(np.clip(_enlarged(small), 0, 1), opaque=True)


def heat_layer(small: NDArray[np.float32]) -> str:
    """Return a map as a PNG data URI to be stretched over its image; with the colours and opacity of `overlay`.

    Args:
        small: map of any size, non-negative; normalised by its maximum.
    """
    return _heat_uri(normalize_map(_enlarged(normalize_map(small))), opaque=False)


def _enlarged(small: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = small.shape
    scale = HEAT_SIDE / max(height, width)
    return upsample_map(small, max(1, round(height * scale)), max(1, round(width * scale)))


def _heat_uri(heat: NDArray[np.float32], *, opaque: bool) -> str:
    """Encode values in 0..1 as a PNG with a palette, which is a tenth of the size of one in full colour."""
    ramp = np.linspace(0, 1, HEAT_LEVELS, dtype=np.float32)
    picture = Image.fromarray(np.round(heat * (HEAT_LEVELS - 1)).astype(np.uint8), "P")
    picture.putpalette(apply_colormap(ramp if opaque else 0.12 + 0.88 * ramp).tobytes())
    buffer = io.BytesIO()
    if opaque:
        picture.save(buffer, "PNG", optimize=True)
    else:
        opacity = np.round(255 * 0.78 * ramp**0.8).astype(np.uint8)
        picture.save(buffer, "PNG", optimize=True, transparency=opacity.tobytes())
    return _data_uri(buffer, "png")


def thumbnail(image: NDArray[np.uint8], side: int = THUMBNAIL) -> str:
    """Return an image (H, W, 3) as a JPEG data URI, downscaled if its longest side is longer than ``side``."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data_uri(buffer, "jpeg")


def _data_uri(buffer: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def denormalize(
    images: NDArray[np.generic],
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> NDArray[np.uint8]:
    """Undo the normalisation of a batch for display; returns uint8 NHWC.

    Args:
        images: uint8 NHWC, returned unchanged; or float NCHW, normalised with ``mean`` and ``std`` in units of 0..1.
        mean: per RGB channel.
        std: per RGB channel.
    """
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    nhwc = images.astype(np.float32).transpose(0, 2, 3, 1) * np.asarray(std, np.float32) + np.asarray(
        mean, np.float32
    )
    return np.asarray(np.clip(nhwc * 255 + 0.5, 0, 255)).astype(np.uint8)
