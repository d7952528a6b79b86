"""Noise: Albumentations samples the noise map before decoding, and the same map is fed to DALI.

Noise that depends on pixels (ISONoise, ShotNoise) is not lowered: DALI's noise operators cannot be seeded per sample, so
the same plan would no longer yield the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import albumentations as A
import numpy as np

from ....geometry import Size
from ..lowering import EXACT, ONE_LEVEL, Argument, Device, Lowering, Node
from .arithmetic import as_float, as_int, clamp_to_uint8, on_device, to_uint8_floor

_NOISE = Argument("noise", "int16", 3)
_FACTOR = Argument("factor", "float32", 3)
_KEEP = Argument("kept", "uint8", 3)
_VALUES = Argument("put", "uint8", 3)


def _noise_arguments(transform: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    noise = np.asarray(params["noise_map"])
    if noise.ndim == 1:
        noise = noise.reshape(1, 1, -1)
    elif _shares_map(transform):
        noise = noise[..., :1]
    return (np.trunc(np.clip(noise.astype(np.float32), -255, 255)),)


def _shares_map(transform: Any) -> bool:
    """Return whether all channels share one map; by the options, as DALI needs equal channels throughout a batch."""
    if isinstance(transform, A.GaussNoise):
        return not transform.per_channel and transform.noise_scale_factor == 1
    return bool(transform.spatial_mode == "shared" and transform.approximation == 1)


def _emit_added(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return clamp_to_uint8(as_int(images) + as_int(on_device(nodes[0], device)))


def _factor_arguments(transform: Any, params: Mapping[str, Any], _: Size) -> tuple[Any, ...]:
    factor = np.asarray(params["multiplier"])
    if factor.ndim == 1:
        return (factor.reshape(1, 1, -1),)
    return (factor if transform.per_channel else factor[..., :1],)


def _emit_multiplied(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return to_uint8_floor(as_float(images) * on_device(nodes[0], device))


def _salt_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    salt, pepper = (params[name][..., np.newaxis] for name in ("salt_mask", "pepper_mask"))
    return np.where(salt | pepper, 0, 255), np.where(salt, 255, 0)


def _emit_replaced(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    keep, values = (on_device(node, device) for node in nodes)
    return (images & keep) | values


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("AdditiveNoise", "GaussNoise", "RGBShift"), (_NOISE,), _noise_arguments, _emit_added, EXACT),
    Lowering(("MultiplicativeNoise",), (_FACTOR,), _factor_arguments, _emit_multiplied, ONE_LEVEL),
    Lowering(("SaltAndPepper",), (_KEEP, _VALUES), _salt_arguments, _emit_replaced, EXACT),
)
"""Albumentations truncates additive noise to integers, so it is fed as int16."""
