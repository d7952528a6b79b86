"""Arguments and operators that several rules share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...sizes import Size
from ..base import Argument, Device, Node

ANCHOR = Argument("anchor_yx", "int32", 1)
SHAPE = Argument("shape_hw", "int32", 1)
RESIZED = Argument("size_hw", "float32", 1)


def no_arguments(_: Any, __: Mapping[str, Any], ___: Size) -> tuple[Any, ...]:
    """Lower a transform that draws nothing but whether it happens."""
    return ()


def cut(images: Node, anchor: Node, shape: Node, device: Device) -> Node:
    """Cut a region out of each image."""
    from nvidia.dali import fn

    return fn.slice(images, start=anchor, shape=shape, axes=(0, 1), device=device)


def resize_linear(images: Node, size: Node, device: Device) -> Node:
    """Resize as ``cv2.INTER_LINEAR`` does: no antialiasing."""
    from nvidia.dali import fn, types

    return fn.resize(images, size=size, interp_type=types.INTERP_LINEAR, antialias=False, device=device)
