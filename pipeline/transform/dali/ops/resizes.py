"""Resizing and padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ...output_shapes import output_size
from ..lowering import EXACT, ONE_LEVEL, Device, Lowering, Node
from .common import (
    ANCHOR,
    RESIZED,
    SHAPE,
    border_colour,
    crop_with_border,
    filter_tolerance,
    resize,
    resize_unsupported_reason,
)


def _resize_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    return (np.array(output_size(transform, params, size)),)


def _emit_resize(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    (size,) = nodes
    return resize(images, size, transform.interpolation, device)


def _pad_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    return np.array([-params["pad_top"], -params["pad_left"]]), np.array(output_size(transform, params, size))


def _emit_pad(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape = nodes
    return crop_with_border(
        images, anchor, shape, transform.border_mode, border_colour(transform.fill), device
    )


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("LongestMaxSize", "RandomScale", "Resize", "SmallestMaxSize"),
        (RESIZED,),
        _resize_arguments,
        _emit_resize,
        ONE_LEVEL,
        unsupported=resize_unsupported_reason,
        approximation=filter_tolerance,
    ),
    Lowering(
        ("Pad", "PadIfNeeded"),
        (ANCHOR, SHAPE),
        _pad_arguments,
        _emit_pad,
        EXACT,
    ),
)
