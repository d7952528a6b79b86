"""Distortions by coordinate maps: elastic, grid, optical, thin plate spline, piecewise affine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import Argument, Device, Lowering, Node, Tolerance
from .common import SHAPE, border_colour, crop_with_border

MARGIN = 2
"""Padding around the image, so that ``remap``, which supports one border mode only, never uses it."""

_CONSTANT, _REPLICATE, _REFLECT, _WRAP = range(4)
_LINEAR = (1, 3)
"""cv2.INTER_LINEAR and INTER_AREA, which ``cv2.remap`` treats the same."""
_MAP_X = Argument("map_x", "float32", 2)
_MAP_Y = Argument("map_y", "float32", 2)


def _arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    map_x = fold_coordinates(params["map_x"], size[1], transform.border_mode) + MARGIN
    map_y = fold_coordinates(params["map_y"], size[0], transform.border_mode) + MARGIN
    return map_x, map_y, np.array(size) + 2 * MARGIN


def fold_coordinates(coordinates: np.ndarray, length: int, border_mode: int) -> np.ndarray:
    """Map coordinates outside the image to those from which the border mode takes its pixels.

    Args:
        coordinates: along one axis, in pixels, 0 at the centre of the first one.
        length: pixels along this axis.
        border_mode: OpenCV's number.

    Returns:
        Coordinates from -1 to ``length``: one pixel of border on both ends.
    """
    last = length - 1
    inside: np.ndarray
    if border_mode == _CONSTANT:
        inside = np.clip(coordinates, -1, length)
    elif border_mode == _REPLICATE:
        inside = np.clip(coordinates, 0, last)
    elif border_mode == _WRAP:
        inside = np.mod(coordinates, length)
    elif border_mode == _REFLECT:
        once = np.mod(coordinates + 0.5, 2 * length)
        inside = np.clip(np.minimum(once, 2 * length - once) - 0.5, 0, last)
    else:
        once = np.mod(coordinates, max(1, 2 * last))
        inside = np.clip(np.minimum(once, 2 * last - once), 0, last)
    return inside


def _emit(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn, types

    map_x, map_y, shape = nodes
    # As in Albumentations, OpenCV gets the fill unchanged and applies a single level to the first channel only.
    colour = border_colour(transform.fill, spread=False)
    framed = crop_with_border(images, [-MARGIN, -MARGIN], shape, transform.border_mode, colour, device)
    return fn.experimental.remap(
        framed,
        map_x.gpu(),
        map_y.gpu(),
        interp=types.INTERP_LINEAR,
        pixel_origin="center",
        device=device,
    )


def _unsupported(transform: Any) -> str:
    if transform.interpolation in _LINEAR:
        return ""
    return "DALI's remap follows OpenCV's with linear interpolation only"


def _unsupported_piecewise(transform: Any) -> str:
    if transform.scale[0] <= 0:
        return "Albumentations has no maps for a scale of 0"
    return _unsupported(transform)


_TOLERANCE = Tolerance(max_levels=2)
"""The maps are exact in float32; the difference is NPP's rounding of linear interpolation."""
_GPU_ONLY = "DALI's remap runs on the GPU only"

LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("ElasticTransform", "GridDistortion", "OpticalDistortion", "ThinPlateSpline"),
        (_MAP_X, _MAP_Y, SHAPE),
        _arguments,
        _emit,
        _TOLERANCE,
        unsupported=_unsupported,
        gpu_only=_GPU_ONLY,
    ),
    Lowering(
        ("PiecewiseAffine",),
        (_MAP_X, _MAP_Y, SHAPE),
        _arguments,
        _emit,
        _TOLERANCE,
        unsupported=_unsupported_piecewise,
        gpu_only=_GPU_ONLY,
    ),
)
