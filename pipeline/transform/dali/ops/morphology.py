"""Erosion and dilation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import EXACT, Device, Lowering, Node
from .common import SHAPE, crop_with_border

_MAX_NEIGHBOURS = 32
"""Each neighbour costs two operators; with more of them OpenCV is faster."""


def _kernel(transform: Any) -> np.ndarray:
    import cv2

    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, transform.scale))


def _arguments(_: Any, __: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    return (np.array(size),)


def _emit(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    """Compute the maximum or minimum over shifted images; the border is the neutral element.

    DALI's own ``dilate`` and ``erode`` take rectangles only, and run on a GPU only.
    """
    from nvidia.dali import math

    (shape,) = nodes
    kernel = _kernel(transform)
    dilates = transform.operation == "dilation"
    centre_y, centre_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    beyond = [0.0 if dilates else 255.0] * 3
    shifted = [
        crop_with_border(images, [int(y) - centre_y, int(x) - centre_x], shape, 0, beyond, device)
        for y, x in np.argwhere(kernel)
    ]
    return reduce(math.max if dilates else math.min, shifted)


def _unsupported(transform: Any) -> str:
    neighbours = int(_kernel(transform).sum())
    if neighbours <= _MAX_NEIGHBOURS:
        return ""
    return f"a pixel has {neighbours} neighbours, and with more than {_MAX_NEIGHBOURS} OpenCV is faster"


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(("Morphological",), (SHAPE,), _arguments, _emit, EXACT, unsupported=_unsupported, depth=25),
)
