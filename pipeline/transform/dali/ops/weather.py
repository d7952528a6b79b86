"""Light, shadow and weather patterns, computed on the host from sampled parameters.

Each pattern is as large as the image, so using it on a GPU costs a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import ONE_LEVEL, Argument, Device, Lowering, Node
from .arithmetic import as_float, on_device, to_uint8_floor, to_uint8_round

_PATTERN = Argument("pattern", "float32", 3)
_KEEP = Argument("kept", "float32", 3)
_STRENGTH = Argument("strength", "float32", 1)
_RAIN = Argument("rain", "uint8", 3)
_BRIGHTNESS = Argument("brightness", "float32", 1)
_LAYER = Argument("layer", "float32", 3)


def _illumination_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    """Compute the pattern by illuminating a dark gray float image with Albumentations, scaled by 4 to avoid clipping."""
    lit = transform.apply(np.full(size, 0.25, np.float32), **params)
    return (4 * lit[..., np.newaxis],)


def _emit_illuminated(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    lit = as_float(images) * on_device(nodes[0], device)
    return to_uint8_round(lit) if transform.mode == "linear" else to_uint8_floor(lit)


def _shadow_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (1 - params["plasma_pattern"][..., np.newaxis] * params["intensity"],)


def _polygon_arguments(_: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    import cv2

    light = np.ones(size, np.float32)
    for vertices, intensity in zip(params["vertices_list"], params["intensities"], strict=True):
        inside = np.zeros(size, np.uint8)
        cv2.fillPoly(inside, [vertices.astype(np.int32)], (1,))
        light[inside == 1] *= 1 - intensity
    return (light[..., np.newaxis],)


def _emit_darkened(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return to_uint8_floor(as_float(images) * on_device(nodes[0], device))


def _unsupported_shadows(transform: Any) -> str:
    if transform.num_shadows_limit[1] <= 2:
        return ""
    return "more than two overlapping shadows are rounded more than twice"


def _plasma_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    """Return pattern and strengths, clamped at 0: Albumentations clips negative ones, so that none darkens."""
    strength = [max(0.0, params[f"{name}_factor"]) for name in ("brightness", "contrast")]
    return params["plasma_pattern"][..., np.newaxis], np.array(strength)


def _emit_plasma(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn, math

    pattern, strength = (on_device(node, device) for node in nodes)
    brighter = math.min(as_float(images) / 255.0 + pattern * strength[0:1], 1.0)
    mean = fn.reductions.mean(brighter)
    weight = pattern * strength[1:2] + 1.0
    spread = math.min(brighter * weight, 1.0)
    return to_uint8_round((spread + mean * (1.0 - weight)) * 255.0)


def _rain_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    """Compute the rain layer by applying Albumentations to a black image without darkening.

    An image too small for a single drop stays unchanged.
    """
    from albumentations.augmentations.pixel.functional import add_rain

    layer = add_rain(
        np.zeros((*size, 3), np.uint8),
        params["slant"],
        params["drop_length"],
        transform.drop_width,
        transform.drop_color,
        transform.blur_value,
        1.0,
        params["rain_drops"],
    )
    return layer, np.array([transform.brightness_coefficient if len(params["rain_drops"]) else 1.0])


def _emit_rain(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import math

    wet = math.min(as_float(images) + as_float(on_device(nodes[0], device)), 255.0)
    return to_uint8_round(wet * on_device(nodes[1], device))


def _spatter_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    if params["mode"] == "rain":
        return np.ones((1, 1, 1)), params["drops"]
    return params["non_mud"], params["mud"]


def _emit_spattered(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    keep, layer = (on_device(node, device) for node in nodes)
    return to_uint8_round(as_float(images) * keep + layer * 255.0)


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("Illumination",), (_PATTERN,), _illumination_arguments, _emit_illuminated, ONE_LEVEL, depth=8),
    Lowering(("PlasmaShadow",), (_PATTERN,), _shadow_arguments, _emit_darkened, ONE_LEVEL, depth=7),
    Lowering(
        ("PlasmaBrightnessContrast",),
        (_PATTERN, _STRENGTH),
        _plasma_arguments,
        _emit_plasma,
        ONE_LEVEL,
        depth=14,
    ),
    Lowering(
        ("RandomShadow",),
        (_PATTERN,),
        _polygon_arguments,
        _emit_darkened,
        ONE_LEVEL,
        unsupported=_unsupported_shadows,
        depth=7,
    ),
    Lowering(("RandomRain",), (_RAIN, _BRIGHTNESS), _rain_arguments, _emit_rain, ONE_LEVEL, depth=10),
    Lowering(("Spatter",), (_KEEP, _LAYER), _spatter_arguments, _emit_spattered, ONE_LEVEL, depth=9),
)
