"""Color transforms across channels: hue, saturation, gray, sepia, shuffled and dropped channels."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from ....geometry import Size
from ....policy.registry import load_albumentations
from ..lowering import EXACT, ONE_LEVEL, Argument, Device, Lowering, Node
from .arithmetic import (
    as_float,
    as_int,
    channels,
    clamp_to_uint8,
    on_device,
    per_channel,
    repeat_gray,
    to_uint8_floor,
)
from .colorspace import hsv_to_rgb, rgb_to_gray, rgb_to_hsv, rgb_to_lightness
from .common import no_arguments

_SHIFTED = Argument("shifted", "bool")
_SHIFTS = Argument("shifts", "int32", 1)
_MIX = Argument("mix", "uint8", 2)
_KEEP = Argument("kept", "uint8", 1)
_FILL = Argument("fill", "uint8", 1)
_FACTORS = Argument("factors", "float32", 1)


def _hsv_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    hue, saturation, value = (params[f"{name}_shift"] for name in ("hue", "sat", "val"))
    return any((hue, saturation, value)), np.array([int(np.floor(hue)) % 180, int(saturation), int(value)])


def _emit_hsv(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    if nodes[0]:  # unchanged without a shift, not even rounded
        images = _shifted(images, on_device(nodes[1], device), device)
    return images


def _shifted(images: Node, shifts: Node, device: Device) -> Node:
    from nvidia.dali import math

    hue, saturation, value = rgb_to_hsv(images)
    colored = as_int(saturation > 0)  # gray stays gray
    saturation = colored * math.clamp(saturation + shifts[1:2], 0, 255)
    value = math.clamp(value + shifts[2:3], 0, 255)
    return hsv_to_rgb(rotate_hue(hue, shifts[0:1]), saturation, value, device)


def rotate_hue(hue: Node, shift: Node) -> Node:
    """Add 0..179 to a hue of 0..179, int32, modulo 180."""
    hue = hue + shift
    return hue - 180 * as_int(hue >= 180)


def _shuffle_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    mix = np.zeros((3, 3), np.uint8)
    mix[params["channels_shuffled"], [0, 1, 2]] = 1
    return (mix,)


def _emit_shuffled(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    mix = on_device(nodes[0], device)
    red, green, blue = channels(images)
    return red * mix[0, :] + green * mix[1, :] + blue * mix[2, :]


def _drop_arguments(transform: Any, params: Mapping[str, Any], _: Size) -> tuple[Any, ...]:
    keep = np.ones(3, np.uint8)
    keep[params["channels_to_drop"]] = 0
    return keep, (1 - keep) * np.uint8(transform.fill)


def _emit_dropped(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return images * on_device(nodes[0], device) + on_device(nodes[1], device)


def _emit_gray(transform: Any, images: Node, _: tuple[Node, ...], __: Device) -> Node:
    from nvidia.dali import math

    if transform.method == "weighted_average":
        return repeat_gray(clamp_to_uint8(rgb_to_gray(images)))
    if transform.method == "from_lab":
        return repeat_gray(rgb_to_lightness(images))
    red, green, blue = channels(images)
    if transform.method == "average":
        return repeat_gray(clamp_to_uint8((as_int(red) + as_int(green) + as_int(blue)) // 3))
    highest = math.max(math.max(red, green), blue)
    if transform.method == "max":
        return repeat_gray(highest)
    lowest = math.min(math.min(red, green), blue)
    return repeat_gray(clamp_to_uint8((as_int(highest) + as_int(lowest)) // 2))


def _unsupported_gray(transform: Any) -> str:
    if transform.num_output_channels != 3:
        return f"the output has {transform.num_output_channels} channels, and later transforms take three"
    return "method='pca' computes the principal component of the colours" if transform.method == "pca" else ""


def _emit_sepia(transform: Any, images: Node, _: tuple[Node, ...], device: Device) -> Node:
    """Multiply by a matrix in units of 1/1024, as ``cv2.transform`` does with uint8."""
    weights = np.rint(transform.sepia_transformation_matrix * 1024).astype(int)
    red, green, blue = (
        channel * per_channel(weights[:, i], device) for i, channel in enumerate(channels(as_int(images)))
    )
    return clamp_to_uint8((red + green + blue + 512) // 1024)


@cache
def _planckian(mode: str) -> tuple[np.ndarray, np.ndarray]:
    load_albumentations()
    from albumentations.augmentations.pixel.functional import PLANCKIAN_COEFFS

    temperatures = np.array(sorted(PLANCKIAN_COEFFS[mode]))
    return temperatures, np.array([PLANCKIAN_COEFFS[mode][t] for t in temperatures])


def _planckian_arguments(transform: Any, params: Mapping[str, Any], _: Size) -> tuple[Any, ...]:
    temperatures, table = _planckian(transform.mode)
    red, green, blue = (np.interp(params["temperature"], temperatures, column) for column in table.T)
    return (np.array([red / green, 1, blue / green]),)


def _emit_scaled(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return to_uint8_floor(as_float(images) * on_device(nodes[0], device))


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("HueSaturationValue",), (_SHIFTED, _SHIFTS), _hsv_arguments, _emit_hsv, ONE_LEVEL, depth=50),
    Lowering(("ChannelShuffle",), (_MIX,), _shuffle_arguments, _emit_shuffled, EXACT),
    Lowering(
        ("ChannelDropout",),
        (_KEEP, _FILL),
        _drop_arguments,
        _emit_dropped,
        EXACT,
    ),
    Lowering(("ToGray",), (), no_arguments, _emit_gray, ONE_LEVEL, unsupported=_unsupported_gray, depth=18),
    Lowering(("ToSepia",), (), no_arguments, _emit_sepia, EXACT, depth=11),
    Lowering(("PlanckianJitter",), (_FACTORS,), _planckian_arguments, _emit_scaled, ONE_LEVEL, depth=7),
)
