"""Dropout of rectangles and pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import EXACT, Argument, Device, Lowering, Node
from .common import fill_regions

_ANCHORS = Argument("anchors_yx", "float32", 1)
_SHAPES = Argument("shapes_hw", "float32", 1)
_KEEP = Argument("kept_hwc", "uint8", 3)
_VALUES = Argument("put_hwc", "uint8", 3)
_NOTHING = np.zeros((1, 1, 1), np.uint8)


def _drop_arguments(transform: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    holes = np.reshape(params["holes"], (-1, 4)).astype(int)
    holes = holes if len(holes) else np.zeros((1, 4), int)  # DALI needs at least one, possibly empty
    starts, ends = holes[:, [1, 0]], holes[:, [3, 2]]
    if not isinstance(transform.fill, str):
        return starts.ravel(), (ends - starts).ravel(), _NOTHING, _NOTHING
    keep = np.ones((*size, 1), np.uint8)
    for x0, y0, x1, y1 in holes:
        keep[y0:y1, x0:x1] = 0
    # The fill depends on the sampled seed only, so Albumentations can compute it on a black image.
    values = transform.apply(np.zeros((*size, 3), np.uint8), **params)
    return starts.ravel(), (ends - starts).ravel(), keep, values


def _emit_drop(transform: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    anchors, shapes, keep, values = nodes
    if isinstance(transform.fill, str):
        return _overlay(images, keep, values, device)
    fill = [float(int(level)) for level in np.atleast_1d(transform.fill)]  # NumPy truncates
    return fill_regions(images, anchors, shapes, fill, device)


def _overlay(images: Node, keep: Node, values: Node, device: Device) -> Node:
    """Overlay fill values on dropped pixels; ``keep`` is 1 and ``values`` 0 for all other pixels."""
    return images * keep.gpu() + values.gpu() if device == "gpu" else images * keep + values


def _pixel_drop_arguments(_: Any, params: Mapping[str, Any], __: Size) -> tuple[Any, ...]:
    dropped = np.asarray(params["drop_mask"])
    return ~dropped, np.where(dropped, params["drop_values"], np.uint8(0))


def _emit_pixel_drop(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    keep, values = nodes
    return _overlay(images, keep, values, device)


def _unsupported_fill(transform: Any) -> str:
    is_inpainted = isinstance(transform.fill, str) and transform.fill.startswith("inpaint")
    return "DALI does not inpaint" if is_inpainted else ""


_ARGUMENTS = (_ANCHORS, _SHAPES, _KEEP, _VALUES)

LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("CoarseDropout", "ConstrainedCoarseDropout", "Erasing", "GridDropout", "XYMasking"),
        _ARGUMENTS,
        _drop_arguments,
        _emit_drop,
        EXACT,
        unsupported=_unsupported_fill,
    ),
    Lowering(("FrequencyMasking", "TimeMasking"), _ARGUMENTS, _drop_arguments, _emit_drop, EXACT),
    Lowering(("PixelDropout",), (_KEEP, _VALUES), _pixel_drop_arguments, _emit_pixel_drop, EXACT),
)
