"""Image quality degradation: JPEG compression and downscaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import EXACT, Argument, Device, Lowering, Node, Tolerance

TWO_LEVELS = Tolerance(max_levels=2)
"""One level for each of two resizes."""

_QUALITY = Argument("quality", "int32")
_SMALL = Argument("small_hw", "float32", 1)
_DOWN = Argument("down", "float32", 2)
_UP = Argument("up", "float32", 2)
_SIZE = Argument("size_hw", "float32", 1)


def _quality_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (np.int32(params["quality"]),)


def _emit_jpeg(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    """Compress with red and blue swapped: Albumentations passes RGB to an encoder that expects BGR."""
    swapped = _swapped(images)
    from nvidia.dali import fn

    return _swapped(fn.jpeg_compression_distortion(swapped, quality=nodes[0], device=device))


def _swapped(images: Node) -> Node:
    from nvidia.dali import fn, types

    return fn.color_space_conversion(images, image_type=types.RGB, output_type=types.BGR)


def _unsupported_webp(transform: Any) -> str:
    return "" if transform.compression_type == "jpeg" else "DALI compresses to JPEG, not to WebP"


def _downscale_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    """Compute the warp matrices, for pixel centres at one half.

    OpenCV's nearest neighbour takes the source pixel of the upper left corner, DALI's that of the centre. A small offset
    resolves coordinates on a border between two pixels to the right one; OpenCV itself sometimes errs there.
    """
    import cv2

    scale = params["scale"]
    small = tuple(round(extent * scale) for extent in size)
    nearest = {way: filter_ == cv2.INTER_NEAREST for way, filter_ in transform.interpolation_pair.items()}
    down = np.array([[1 / scale, 0, 0], [0, 1 / scale, 0]])
    up = np.array([[small[1] / size[1], 0, 0], [0, small[0] / size[0], 0]])
    if nearest["downscale"]:
        down[:, 2] = 2e-5 - np.diagonal(down) / 2
    if nearest["upscale"]:
        up[:, 2] = 0.5 / np.array(size[::-1]) - np.diagonal(up) / 2
    return np.array(small), down, up, np.array(size)


def _emit_downscaled(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    import cv2
    from nvidia.dali import fn, types

    small, down, up, size = nodes
    filters = {cv2.INTER_NEAREST: types.INTERP_NN, cv2.INTER_LINEAR: types.INTERP_LINEAR}
    pair = transform.interpolation_pair
    images = fn.warp_affine(
        images, matrix=down, size=small, interp_type=filters[pair["downscale"]], device=device
    )
    return fn.warp_affine(images, matrix=up, size=size, interp_type=filters[pair["upscale"]], device=device)


def _unsupported_filters(transform: Any) -> str:
    import cv2

    if set(transform.interpolation_pair.values()) <= {cv2.INTER_NEAREST, cv2.INTER_LINEAR}:
        return ""
    return "DALI's filter for this interpolation differs"


def _nearest_tolerance(transform: Any) -> Tolerance | None:
    """Return the tolerance for OpenCV's rounding errors with nearest neighbour, on borders between pixels."""
    import cv2

    return Tolerance(min_psnr_db=15) if cv2.INTER_NEAREST in transform.interpolation_pair.values() else None


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("ImageCompression",),
        (_QUALITY,),
        _quality_arguments,
        _emit_jpeg,
        EXACT,
        unsupported=_unsupported_webp,
    ),
    Lowering(
        ("Downscale",),
        (_SMALL, _DOWN, _UP, _SIZE),
        _downscale_arguments,
        _emit_downscaled,
        TWO_LEVELS,
        unsupported=_unsupported_filters,
        approximation=_nearest_tolerance,
    ),
)
