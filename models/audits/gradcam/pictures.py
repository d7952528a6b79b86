"""Images of the report: overlays, mean maps and thumbnails as data URIs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THUMBNAIL = 448
"""Longest side of an image in the report, in pixels."""

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


def heat_picture(small: NDArray[np.float32], side: int = 160) -> str:
    """Return a map with values in 0..1, upsampled and coloured, as a data URI."""
    height, width = small.shape
    scale = side / max(height, width)
    big = upsample_map(small, max(1, round(height * scale)), max(1, round(width * scale)))
    return data_uri(apply_colormap(np.clip(big, 0, 1)), "PNG")


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Return an image as a JPEG data URI, downscaled if necessary."""
    return data_uri(image, "JPEG")


def data_uri(image: NDArray[np.uint8], kind: Literal["JPEG", "PNG"]) -> str:
    """Encode a uint8 image (H, W, 3) as a data URI."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if kind == "JPEG":
        picture.save(buffer, kind, quality=85)
    else:
        picture.save(buffer, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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
