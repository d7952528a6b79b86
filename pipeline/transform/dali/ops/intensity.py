"""Intensity transforms: brightness, contrast, gamma, inversion, posterization, equalization.

Albumentations computes most of them as a lookup table of 256 entries, truncated or rounded to uint8. DALI does not
support lookup tables per sample, so they are arithmetic here, truncated or rounded the same way.
"""

from __future__ import annotations

import math as numbers
from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import EXACT, ONE_LEVEL, Argument, Device, Lowering, Node, Tolerance
from .arithmetic import as_float, as_int, channels, clamp_to_uint8, on_device, to_uint8_floor, to_uint8_round
from .colorspace import rgb_to_ycrcb, ycrcb_to_rgb
from .common import no_arguments

_FACTOR_AND_OFFSET = Argument("factor_offset", "float32", 1)
_GAMMA = Argument("gamma", "float32", 1)
_CURVE = Argument("curve", "float32", 2)
_THRESHOLD = Argument("threshold", "int32", 1)
_KEPT_BITS = Argument("kept_bits", "uint8", 1)


def _linear_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (np.array([params["alpha"], params["beta"]]),)


def _emit_linear(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    line = on_device(nodes[0], device)
    return to_uint8_floor(as_float(images) * line[0:1] + line[1:2])


def _unsupported_mean(transform: Any) -> str:
    return "" if transform.brightness_by_max else "brightness_by_max=False computes parameters from pixels"


def _gamma_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (np.array([params["gamma"]]),)


def _emit_gamma(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import math

    return to_uint8_floor(math.pow(as_float(images) * (1.0 / 255.0), on_device(nodes[0], device)) * 255.0)


def _curve_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    low, high = (np.broadcast_to(params[name], 3) for name in ("low_y", "high_y"))
    return (np.stack([3 * low, 3 * high]),)


def _emit_curve(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    """Apply a cubic Bezier curve from 0 to 1 (Albumentations' documentation of RandomToneCurve)."""
    curve = on_device(nodes[0], device)
    low, high = curve[0, :], curve[1, :]
    t = as_float(images) * (1.0 / 255.0)
    rest = 1.0 - t
    return to_uint8_round((rest * rest * t * low + rest * t * t * high + t * t * t) * 255.0)


def _emit_inverted(_: Any, images: Node, __: tuple[Node, ...], ___: Device) -> Node:
    return clamp_to_uint8(255 - as_int(images))


def _threshold_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (np.array([numbers.ceil(params["threshold"] * 255)]),)


def _emit_solarized(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    values = as_int(images)
    above = as_int(values >= on_device(nodes[0], device))
    return clamp_to_uint8(above * (255 - values) + (1 - above) * values)


def _bits_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    bits = np.broadcast_to(params["num_bits"], 3)
    return (256 - 2 ** (8 - bits),)


def _emit_posterized(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return images & on_device(nodes[0], device)


def _emit_equalized(transform: Any, images: Node, _: tuple[Node, ...], __: Device) -> Node:
    from nvidia.dali import fn, types

    if transform.by_channels:
        return fn.equalize(images)
    luma, cr, cb = rgb_to_ycrcb(images)
    return ycrcb_to_rgb(as_int(fn.equalize(fn.cast(luma, dtype=types.UINT8))), cr, cb)


def _unsupported_equalize(transform: Any) -> str:
    if transform.mask is not None:
        return "DALI equalizes whole images, without a mask"
    return "" if transform.mode == "cv" else "mode='pil' rounds the histogram differently from DALI"


def _emit_stretched(transform: Any, images: Node, _: tuple[Node, ...], __: Device) -> Node:
    """Stretch each channel to the full range; 255 is not in Albumentations' histogram and stays unchanged."""
    from nvidia.dali import fn, math, types

    stretched = []
    for channel in channels(images):
        values = as_int(channel)
        white = as_int(values == 255)
        lowest = as_int(fn.reductions.min(channel))
        rest = fn.cast((1 - white) * values + white * lowest, dtype=types.UINT8)
        if transform.method == "cdf":
            inside = as_int(fn.equalize(rest))
        else:
            spread = as_int(fn.reductions.max(rest)) - lowest
            flat = as_int(spread == 0)
            scale = 255.0 / as_float(math.max(spread, 1))
            even = as_int(to_uint8_round(as_float(as_int(rest) - lowest) * scale))
            inside = flat * as_int(rest) + (1 - flat) * even
        stretched.append(clamp_to_uint8((1 - white) * inside + white * 255))
    return fn.cat(*stretched, axis=2)


def _unsupported_cutoff(transform: Any) -> str:
    if transform.cutoff:
        return "cutoff needs the histogram, which DALI does not provide"
    return "" if transform.ignore is None else "ignore needs the histogram, which DALI does not provide"


def _emit_clahe(transform: Any, images: Node, _: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    across, down = transform.tile_grid_size
    limit = float(transform.clip_limit[0])
    return fn.clahe(images, tiles_x=across, tiles_y=down, clip_limit=limit, device=device)


def _unsupported_clip_limit(transform: Any) -> str:
    low, high = transform.clip_limit
    return (
        "" if low == high else "DALI takes one limit for all pictures; write clip_limit: [4, 4] or the like"
    )


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("RandomBrightnessContrast",),
        (_FACTOR_AND_OFFSET,),
        _linear_arguments,
        _emit_linear,
        ONE_LEVEL,
        unsupported=_unsupported_mean,
        depth=8,
    ),
    Lowering(("RandomGamma",), (_GAMMA,), _gamma_arguments, _emit_gamma, ONE_LEVEL, depth=9),
    Lowering(("RandomToneCurve",), (_CURVE,), _curve_arguments, _emit_curve, ONE_LEVEL, depth=15),
    Lowering(("InvertImg",), (), no_arguments, _emit_inverted, EXACT),
    Lowering(("Solarize",), (_THRESHOLD,), _threshold_arguments, _emit_solarized, EXACT, depth=10),
    Lowering(("Posterize",), (_KEPT_BITS,), _bits_arguments, _emit_posterized, EXACT),
    Lowering(
        ("Equalize",),
        (),
        no_arguments,
        _emit_equalized,
        ONE_LEVEL,
        unsupported=_unsupported_equalize,
        depth=26,
    ),
    Lowering(
        ("AutoContrast",),
        (),
        no_arguments,
        _emit_stretched,
        ONE_LEVEL,
        unsupported=_unsupported_cutoff,
        depth=29,
    ),
    Lowering(
        ("CLAHE",),
        (),
        no_arguments,
        _emit_clahe,
        Tolerance(min_psnr_db=40),  # equal on the CPU; on a GPU DALI has its own conversion to Lab
        unsupported=_unsupported_clip_limit,
    ),
)
