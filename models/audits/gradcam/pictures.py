"""Pictures of the report: overlays, mean maps and thumbnails as data URIs."""

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
"""Longest side of a picture in the report, in pixels."""

COLOURS = "inferno"
"""A perceptually even colour map; dark means no evidence, so nothing is drawn there."""


def normalize_map(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a map to 0..1 by its greatest value, so that 0 stays no evidence; a map without evidence stays zeros."""
    high = float(small.max())
    return np.asarray(small / high if high > 0 else np.zeros_like(small), dtype=np.float32)


def enlarge(small: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Enlarge a map bilinearly, pixel centres aligned as OpenCV and torch (align_corners=False) do."""
    import cv2

    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def apply_colormap(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a map of 0..1: (H, W) -> uint8 (H, W, 3)."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](heat)[..., :3] * 255 + 0.5).astype(np.uint8)


def overlay(image: NDArray[np.uint8], small: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay a small map over its image, the more opaque the stronger the evidence.

    Args:
        image: uint8 (H, W, 3), as the model saw it.
        small: a map of any size, not negative, scaled here by its greatest value.
    """
    height, width = image.shape[:2]
    heat = normalize_map(enlarge(normalize_map(small), height, width))
    opacity = 0.78 * heat[..., None] ** 0.8
    mixed = (1 - opacity) * image + opacity * apply_colormap(0.12 + 0.88 * heat)
    return np.asarray(mixed + 0.5).astype(np.uint8)


def mean_map(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Average maps of one size after scaling each to 0..1, so that no image outweighs another."""
    return np.asarray(np.mean([normalize_map(small) for small in maps], axis=0), dtype=np.float32)


def heat_picture(small: NDArray[np.float32], side: int = 160) -> str:
    """Return a map alone, enlarged and coloured on one scale of 0..1, as a data URI."""
    height, width = small.shape
    scale = side / max(height, width)
    big = enlarge(small, max(1, round(height * scale)), max(1, round(width * scale)))
    return data_uri(apply_colormap(np.clip(big, 0, 1)), "PNG")


def thumbnail(image: NDArray[np.uint8]) -> str:
    """Return an image, made smaller if need be, as a JPEG data URI."""
    return data_uri(image, "JPEG")


def data_uri(image: NDArray[np.uint8], kind: Literal["JPEG", "PNG"]) -> str:
    """Encode a uint8 (H, W, 3) image into a data URI."""
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
    """Return a batch as people see it: uint8 NHWC.

    Args:
        images: uint8 NHWC, passed on; or float NCHW, normalised with ``mean`` and ``std`` (units of 0..1).
        mean: per RGB channel.
        std: per RGB channel.
    """
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    nhwc = images.astype(np.float32).transpose(0, 2, 3, 1) * np.asarray(std, np.float32) + np.asarray(
        mean, np.float32
    )
    return np.asarray(np.clip(nhwc * 255 + 0.5, 0, 255)).astype(np.uint8)
