"""Crops, and crops that are resized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...sizes import Size
from ..base import ONE_LEVEL, Device, Lowering, Node
from .nodes import ANCHOR, RESIZED, SHAPE, cut, resize_linear


def _crop_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    x0, y0, x1, y1 = params["crop_coords"]
    return np.array([y0, x0]), np.array([y1 - y0, x1 - x0])


def _crop_resize_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    return (*_crop_arguments(transform, params, size), np.array(transform.size))


def _emit_crop_resize(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchor, shape, size = nodes
    return resize_linear(cut(images, anchor, shape, device), size, device)


def _refuse_other_filters(transform: Any) -> str:
    import cv2

    return (
        "" if transform.interpolation == cv2.INTER_LINEAR else "DALI's filter for this interpolation differs"
    )


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("RandomResizedCrop",),
        (ANCHOR, SHAPE, RESIZED),
        _crop_resize_arguments,
        _emit_crop_resize,
        ONE_LEVEL,
        refuse=_refuse_other_filters,
    ),
)
