"""Rotations, affine and perspective warps.

All of them use DALI's ``warp_perspective``, which supports OpenCV's pixel centres, border modes and fills, and on the
CPU is bit-identical. ``warp_affine`` accumulates its steps along a row: on images 4000 pixels wide it was measured 6
levels off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ...output_shapes import is_identity, output_size
from ..lowering import ONE_LEVEL, Argument, Device, Lowering, Node
from .common import RESIZED, border_colour

_LINEAR = (1, 3)
"""cv2.INTER_LINEAR and INTER_AREA, which OpenCV's warps treat the same."""
_BORDERS = ("constant", "replicate", "reflect", "wrap", "reflect_101")
"""Names in ``warp_perspective`` of OpenCV's border modes 0 to 4."""
_MATRIX = Argument("matrix", "float32", 2)


def _affine_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    import cv2

    matrix = np.eye(3)
    if not is_identity(params["matrix"]):
        matrix[:2] = cv2.invertAffineTransform(params["matrix"][:2])
    return matrix, np.array(output_size(transform, params, size))


def _rotate_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    matrix, cropped = _affine_arguments(transform, params, size)
    if transform.crop_border:  # only the cropped region is computed
        matrix = matrix @ np.array([[1, 0, params["x_min"]], [0, 1, params["y_min"]], [0, 0, 1]])
    return matrix, cropped


def _perspective_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    import cv2

    matrix = params["matrix"]
    if transform.keep_size:
        scale = np.diag([size[1] / params["max_width"], size[0] / params["max_height"], 1.0])
        matrix = scale @ matrix
    _, inverse = cv2.invert(matrix)  # zeros if singular, as in cv2.warpPerspective
    return inverse, np.array(output_size(transform, params, size))


def _emit_affine(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return _warp(images, nodes, transform.border_mode, border_colour(transform.fill), device)


def _emit_perspective(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    # Albumentations passes its fill unchanged, and OpenCV applies a single level to the first channel only.
    colour = border_colour(transform.fill, spread=False)
    return _warp(images, nodes, transform.border_mode, colour, device)


def _warp(
    images: Node, nodes: tuple[Node, ...], border_mode: int, colour: list[float], device: Device
) -> Node:
    from nvidia.dali import fn, types

    matrix, size = nodes
    return fn.experimental.warp_perspective(
        images,
        matrix=matrix,
        size=size,
        interp_type=types.INTERP_LINEAR,
        border_mode=_BORDERS[border_mode],
        fill_value=colour,
        pixel_origin="center",
        device=device,
    )


def _unsupported(transform: Any) -> str:
    if transform.interpolation in _LINEAR:
        return ""
    return "DALI's warps follow OpenCV's with linear interpolation only"


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("Affine", "SafeRotate", "ShiftScaleRotate"),
        (_MATRIX, RESIZED),
        _affine_arguments,
        _emit_affine,
        ONE_LEVEL,
        unsupported=_unsupported,
    ),
    Lowering(
        ("Rotate",), (_MATRIX, RESIZED), _rotate_arguments, _emit_affine, ONE_LEVEL, unsupported=_unsupported
    ),
    Lowering(
        ("Perspective",),
        (_MATRIX, RESIZED),
        _perspective_arguments,
        _emit_perspective,
        ONE_LEVEL,
        unsupported=_unsupported,
    ),
)
