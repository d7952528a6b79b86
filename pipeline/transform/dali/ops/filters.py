"""Blurs and sharpening with the kernels sampled by Albumentations.

DALI and OpenCV both compute a correlation (the kernel is not flipped) and both reflect at the border without repeating
the outermost pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import ONE_LEVEL, Argument, Device, Lowering, Node, Tolerance
from .arithmetic import as_float, on_device, to_uint8_round

_KERNEL = Argument("kernel", "float32", 2)
_COLUMN = Argument("column", "float32", 2)
_ROW = Argument("row", "float32", 2)
_WINDOW = Argument("window_hw", "int32", 1)
_ALPHA = Argument("alpha", "float32", 1)


def _kernel_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (params["kernel"],)


def _box_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    width = int(params["kernel"])
    return (np.full((width, width), 1 / width**2),)


def _sharpen_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (params["sharpening_matrix"],)


def _emboss_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (params["emboss_matrix"],)


def _defocus_arguments(transform: Any, params: Mapping[str, Any], _: Size) -> tuple[Any, ...]:
    """Compute the kernel by blurring a single point with Albumentations; it is symmetric."""
    reach = max(8, int(params["radius"]))
    point = np.zeros((4 * reach + 1, 4 * reach + 1), np.float32)
    point[2 * reach, 2 * reach] = 1
    blurred = transform.apply(point, **params)
    return (blurred[reach : 3 * reach + 1, reach : 3 * reach + 1],)


def _emit_filtered(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.filter(images, on_device(nodes[0], device), device=device)


def _separable_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    kernel = np.ravel(params["kernel"])
    return kernel[:, np.newaxis], kernel[np.newaxis, :]


def _blurred(values: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn, types

    column, row = (on_device(node, device) for node in nodes)
    return fn.filter(fn.filter(values, row, dtype=types.FLOAT), column, dtype=types.FLOAT)


def _emit_separable(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    return to_uint8_round(_blurred(images, nodes, device))


def _window_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    return (np.array([params["kernel"]] * 2),)


def _emit_median(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    return fn.experimental.median_blur(images, window_size=nodes[0], device=device)


def _unsupported_gaussian(transform: Any) -> str:
    if transform.method == "kernel":
        return ""
    return "method='gaussian' wraps negative values around, which only a bit-identical blur reproduces"


def _unsharp_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    import cv2

    kernel = cv2.getGaussianKernel(params["ksize"], params["sigma"], cv2.CV_32F)
    return kernel, kernel.T, np.array([params["alpha"]])


def _emit_unsharp(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    """Sharpen pixels that differ from their blurred surroundings by more than a threshold, with a soft mask."""
    from nvidia.dali import math

    values = as_float(images) / 255.0
    rest = values - _blurred(values, nodes[:2], device)
    far = as_float(math.abs(rest) * 255.0 > float(transform.threshold))
    share = _blurred(far, nodes[:2], device)
    sharp = math.clamp(values + on_device(nodes[2], device) * rest, 0.0, 1.0)
    return to_uint8_round((sharp * share + values * (1.0 - share)) * 255.0)


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("Blur",), (_KERNEL,), _box_arguments, _emit_filtered, ONE_LEVEL),
    Lowering(
        ("AdvancedBlur", "MotionBlur", "RingingOvershoot"),
        (_KERNEL,),
        _kernel_arguments,
        _emit_filtered,
        ONE_LEVEL,
    ),
    Lowering(("Defocus",), (_KERNEL,), _defocus_arguments, _emit_filtered, ONE_LEVEL),
    Lowering(("Emboss",), (_KERNEL,), _emboss_arguments, _emit_filtered, ONE_LEVEL),
    Lowering(
        ("Sharpen",),
        (_KERNEL,),
        _sharpen_arguments,
        _emit_filtered,
        ONE_LEVEL,
        unsupported=_unsupported_gaussian,
    ),
    Lowering(("GaussianBlur",), (_COLUMN, _ROW), _separable_arguments, _emit_separable, ONE_LEVEL, depth=8),
    Lowering(
        ("MedianBlur",),
        (_WINDOW,),
        _window_arguments,
        _emit_median,
        Tolerance(min_psnr_db=40),  # not measured here: DALI has it on a GPU only
        gpu_only="DALI's median runs on a GPU only",
    ),
    Lowering(
        ("UnsharpMask",),
        (_COLUMN, _ROW, _ALPHA),
        _unsharp_arguments,
        _emit_unsharp,
        Tolerance(min_psnr_db=45),  # a pixel at the threshold may be classified differently
        depth=21,
    ),
)
