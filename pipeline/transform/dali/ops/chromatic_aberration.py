"""Chromatic aberration: radial distortion of the red and blue channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....geometry import Size
from ..lowering import Argument, Device, Lowering, Node, Tolerance
from .arithmetic import channels, on_device

_MAPS = tuple(Argument(f"{colour}_{axis}", "float32", 2) for colour in ("red", "blue") for axis in "xy")


def _arguments(_: Any, params: Mapping[str, Any], size: Size) -> tuple[Any, ...]:
    """Compute the maps of red and blue with OpenCV's lens model (its documentation, "Camera Calibration").

    Coordinates outside the image are clamped to its border, as with ``cv2.BORDER_REPLICATE``.
    """
    import cv2

    height, width = size
    camera = np.array([[width, 0, width / 2], [0, height, height / 2], [0, 0, 1]], np.float32)
    maps = []
    for colour in ("red", "blue"):
        bend = [params[f"{order}_distortion_{colour}"] for order in ("primary", "secondary")]
        lens = np.array([*bend, 0, 0], np.float32)
        x, y = cv2.initUndistortRectifyMap(
            camera,
            lens,
            None,
            camera,
            (width, height),
            cv2.CV_32FC1,
        )
        maps += [np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)]
    return tuple(maps)


def _emit(_: Any, images: Node, nodes: tuple[Node, ...], device: Device) -> Node:
    from nvidia.dali import fn

    red, green, blue = channels(images)
    red_x, red_y, blue_x, blue_y = (on_device(node, device) for node in nodes)
    return fn.cat(
        _remapped(red, red_x, red_y, device), green, _remapped(blue, blue_x, blue_y, device), axis=2
    )


def _remapped(channel: Node, map_x: Node, map_y: Node, device: Device) -> Node:
    from nvidia.dali import fn, types

    return fn.experimental.remap(
        channel, map_x, map_y, interp=types.INTERP_LINEAR, pixel_origin="center", device=device
    )


def _unsupported(transform: Any) -> str:
    import cv2

    linear = transform.interpolation in {cv2.INTER_LINEAR, cv2.INTER_AREA}
    return "" if linear else "DALI's remap follows OpenCV's with linear interpolation only"


LOWERINGS: tuple[Lowering, ...] = (
    Lowering(
        ("ChromaticAberration",),
        _MAPS,
        _arguments,
        _emit,
        Tolerance(max_levels=2),  # as other distortions; not measured here: DALI has it on a GPU only
        unsupported=_unsupported,
        gpu_only="DALI's remap runs on the GPU only",
    ),
)
