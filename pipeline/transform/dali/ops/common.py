"""Arguments, operators and option checks shared by the lowerings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import Argument, Device, Node, Tolerance

ANCHOR = Argument("anchor_yx", "int32", 1)
SHAPE = Argument("shape_hw", "int32", 1)
RESIZED = Argument("size_hw", "float32", 1)

OUT_OF_BOUNDS = ("constant", "edge", "reflect_1001", "wrap", "reflect_101")
"""Names in ``slice`` of OpenCV's border modes 0 to 4, BORDER_CONSTANT to BORDER_REFLECT_101."""

_FILTERS = {1: "INTERP_LINEAR", 2: "INTERP_CUBIC", 4: "INTERP_LANCZOS3", 5: "INTERP_LINEAR"}
"""DALI's filter for OpenCV's INTER_LINEAR, INTER_CUBIC, INTER_LANCZOS4 and INTER_LINEAR_EXACT."""
_OTHER_FILTERS = (2, 4)
"""Cubic with -1/2 instead of -3/4 (Keys 1981, eq. 4 and 15), Lanczos with 3 lobes instead of 4."""
_FILTER_PSNR_DB = 33.0
"""PSNR of those two filters on noise; 40 dB and more on photos."""
_REFUSED_FILTERS = {
    0: "OpenCV's nearest neighbour rounds down, DALI's does not",
    3: "DALI has no area filter",
    6: "DALI's nearest neighbour rounds ties the other way",
}


def no_arguments(_: Any, __: Mapping[str, Any], ___: Size) -> tuple[Any, ...]:
    """Return no arguments, for a transform without random parameters."""
    return ()


def crop(images: Node, anchor: Node, shape: Node, device: Device) -> Node:
    """Crop a region of each image."""
    from nvidia.dali import fn

    return fn.slice(images, start=anchor, shape=shape, axes=(0, 1), device=device)


def crop_with_border(
    images: Node, anchor: Node, shape: Node, border_mode: int, colour: list[float], device: Device
) -> Node:
    """Crop a region that may extend beyond the image, padded with OpenCV's border mode."""
    from nvidia.dali import fn

    return fn.slice(
        images,
        start=anchor,
        shape=shape,
        axes=(0, 1),
        out_of_bounds_policy=OUT_OF_BOUNDS[border_mode],
        fill_values=colour,
        device=device,
    )


def fill_regions(
    images: Node, anchors: Node, shapes: Node, colour: Node | list[float], device: Device
) -> Node:
    """Fill regions of each image, with anchors y, x, y, x... and shapes height, width, height, width... in pixels."""
    from nvidia.dali import fn

    return fn.erase(images, anchor=anchors, shape=shapes, axis_names="HW", fill_value=colour, device=device)


def resize(images: Node, size: Node, interpolation: int, device: Device) -> Node:
    """Resize as ``cv2.resize`` does, without antialiasing."""
    from nvidia.dali import fn, types

    interp_type = getattr(types, _FILTERS[interpolation])
    return fn.resize(images, size=size, interp_type=interp_type, antialias=False, device=device)


def resize_unsupported_reason(transform: Any) -> str:
    """Return why DALI does not support a transform's interpolation; empty if it does."""
    if getattr(transform, "area_for_downscale", None):
        return _REFUSED_FILTERS[3]
    return _REFUSED_FILTERS.get(transform.interpolation, "")


def filter_tolerance(transform: Any) -> Tolerance | None:
    """Return the tolerance of DALI's filter; None if it equals OpenCV's."""
    return Tolerance(min_psnr_db=_FILTER_PSNR_DB) if transform.interpolation in _OTHER_FILTERS else None


def border_colour(fill: Any, *, spread: bool = True) -> list[float]:
    """Return the RGB levels with which OpenCV fills a border.

    Args:
        fill: one level or up to four, rounded and clamped as ``cv2.saturate_cast<uchar>`` does.
        spread: whether a single level applies to all channels; OpenCV itself applies it to the first only.
    """
    levels = np.atleast_1d(np.asarray(fill, float))
    if spread and isinstance(fill, float):
        levels = levels.repeat(3)
    colour = np.zeros(3)
    colour[: len(levels[:3])] = np.clip(np.rint(levels[:3]), 0, 255)
    return [float(level) for level in colour]
