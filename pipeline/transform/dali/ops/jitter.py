"""ColorJitter: brightness, contrast, saturation and hue in sampled order.

Each step alone is within one level; later steps amplify the difference, most of all the hue of dark pixels. So the
tolerance is a signal-to-noise ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import Argument, Device, Lowering, Node, Tolerance
from .arithmetic import as_float, on_device, to_uint8_floor, to_uint8_round
from .colors import rotate_hue
from .colorspace import hsv_to_rgb, rgb_to_gray, rgb_to_hsv

_ORDER = Argument("order", "int32", 1)
_FACTORS = Argument("factors", "float32", 1)
_HAS_HUE_SHIFT = Argument("turned", "bool")
_HUE_SHIFT = Argument("turn", "int32", 1)

_BRIGHTNESS, _CONTRAST, _SATURATION = range(3)
"""Indices of the steps in Albumentations; hue is the fourth."""


def _arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    factors = np.array([params["brightness"], params["contrast"], params["saturation"]])
    hue = params["hue"]
    return np.array(params["order"]), factors, hue != 0, np.array([int(np.floor(180 * hue)) % 180])


def _brightened(images: Node, factor: Node) -> Node:
    return to_uint8_floor(as_float(images) * factor)


def _contrasted(images: Node, factor: Node) -> Node:
    from nvidia.dali import fn

    mean = fn.reductions.mean(as_float(rgb_to_gray(images)))
    return to_uint8_floor(as_float(images) * factor + mean * (1.0 - factor))


def _saturated(images: Node, factor: Node) -> Node:
    return to_uint8_round(as_float(images) * factor + as_float(rgb_to_gray(images)) * (1.0 - factor))


def _hue_rotated(images: Node, hue_shift: Node, device: Device) -> Node:
    hue, saturation, value = rgb_to_hsv(images)
    return hsv_to_rgb(rotate_hue(hue, hue_shift), saturation, value, device)


def _emit(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    """Run the four steps in sampled order; each position is a conditional over the four steps, per sample."""
    order, has_hue_shift = nodes[0], nodes[2]
    factors, hue_shift = on_device(nodes[1], device), on_device(nodes[3], device)
    for position in range(4):
        step = order[position]
        if step == _BRIGHTNESS:
            images = _brightened(images, factors[0:1])
        elif step == _CONTRAST:
            images = _contrasted(images, factors[1:2])
        elif step == _SATURATION:
            images = _saturated(images, factors[2:3])
        elif has_hue_shift:  # unchanged without a hue shift, not even rounded
            images = _hue_rotated(images, hue_shift, device)
    return images


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("ColorJitter",),
        (_ORDER, _FACTORS, _HAS_HUE_SHIFT, _HUE_SHIFT),
        _arguments,
        _emit,
        Tolerance(min_psnr_db=35),
        depth=218,
    ),
)
