"""Crops, padded crops and resized crops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ...output_shapes import output_size
from ..lowering import EXACT, ONE_LEVEL, Argument, Device, Lowering, Node, Tolerance
from .common import (
    ANCHOR,
    RESIZED,
    SHAPE,
    border_colour,
    crop,
    crop_with_border,
    fill_regions,
    filter_tolerance,
    resize,
    resize_unsupported_reason,
)

_CONSTANT = 0
"""cv2.BORDER_CONSTANT."""
_PADDED_ANCHOR = Argument("padded_anchor_yx", "int32", 1)
_PADDED_SHAPE = Argument("padded_shape_hw", "int32", 1)
_MARGIN_ANCHORS = Argument("margin_anchors_yx", "float32", 1)
_MARGIN_SHAPES = Argument("margin_shapes_hw", "float32", 1)
_MARGIN_COLOUR = Argument("margin_colour", "float32", 1)


def _crop_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    x0, y0, x1, y1 = params["crop_coords"]
    return np.array([y0, x0]), np.array([y1 - y0, x1 - x0])


def _emit_crop(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape = nodes
    return crop(images, anchor, shape, device)


def _padded_crop_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    # Padding followed by cropping is one crop that may start outside the image.
    anchor, shape = _crop_arguments(transform, params, size)
    pads = params["pad_params"] or {"pad_top": 0, "pad_left": 0}
    return anchor - (pads["pad_top"], pads["pad_left"]), shape


def _emit_padded_crop(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape = nodes
    return crop_with_border(
        images, anchor, shape, transform.border_mode, border_colour(transform.fill), device
    )


def _crop_resize_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    return (*_crop_arguments(transform, params, size), np.array(output_size(transform, params, size)))


def _emit_crop_resize(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape, size = nodes
    return resize(crop(images, anchor, shape, device), size, transform.interpolation, device)


def _crop_and_pad_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    x0, y0, x1, y1 = params["crop_params"] or (0, 0, size[1], size[0])
    top, bottom, left, right = params["pad_params"] or (0, 0, 0, 0)
    height, width = y1 - y0 + top + bottom, x1 - x0 + left + right
    return (
        np.array([y0, x0]),
        np.array([y1 - y0, x1 - x0]),
        np.array([-top, -left]),
        np.array([height, width]),
        np.array([0, 0, height - bottom, 0, 0, 0, 0, width - right]),
        np.array([top, width, bottom, width, height, left, height, right]),
        np.array(border_colour(params["fill"])),
        np.array(output_size(transform, params, size)),
    )


def _emit_crop_and_pad(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape, padded_anchor, padded_shape, margins, margin_shapes, colour, size = nodes
    cropped = crop(images, anchor, shape, device)
    padded = crop_with_border(cropped, padded_anchor, padded_shape, transform.border_mode, [0.0] * 3, device)
    if transform.border_mode == _CONSTANT and transform.fill != 0:
        padded = fill_regions(padded, margins, margin_shapes, colour, device)  # sampled per image
    return resize(padded, size, transform.interpolation, device) if transform.keep_size else padded


def _crop_and_pad_tolerance(transform: Any) -> Tolerance | None:
    return filter_tolerance(transform) if transform.keep_size else None


def _unsupported_crop_and_pad(transform: Any) -> str:
    return resize_unsupported_reason(transform) if transform.keep_size else ""


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "RandomCropFromBorders"),
        (ANCHOR, SHAPE),
        _crop_arguments,
        _emit_crop,
        EXACT,
    ),
    Lowering(
        ("CenterCrop", "Crop", "RandomCrop"),
        (ANCHOR, SHAPE),
        _padded_crop_arguments,
        _emit_padded_crop,
        EXACT,
    ),
    Lowering(
        ("RandomResizedCrop", "RandomSizedBBoxSafeCrop", "RandomSizedCrop"),
        (ANCHOR, SHAPE, RESIZED),
        _crop_resize_arguments,
        _emit_crop_resize,
        ONE_LEVEL,
        unsupported=resize_unsupported_reason,
        approximation=filter_tolerance,
    ),
    Lowering(
        ("CropAndPad",),
        (
            ANCHOR,
            SHAPE,
            _PADDED_ANCHOR,
            _PADDED_SHAPE,
            _MARGIN_ANCHORS,
            _MARGIN_SHAPES,
            _MARGIN_COLOUR,
            RESIZED,
        ),
        _crop_and_pad_arguments,
        _emit_crop_and_pad,
        ONE_LEVEL,
        unsupported=_unsupported_crop_and_pad,
        approximation=_crop_and_pad_tolerance,
    ),
)
