"""The sampled parameters of a transform in a few words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..text import one_line
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, output_size
from ..transform.params import TransformCall

MOST_CHARACTERS = 160
MOST_VALUES = 6
"""Of a list that is written out."""
UNSAID = frozenset(
    {"bbox_matrix", "cols", "fill", "fill_mask", "interpolation", "matrix_bbox", "order", "random_seed", "rows", "seed"}
    | {"shape"}
)  # fmt: skip
"""Parameters that mean nothing to a reader, or repeat the plan."""

Phrase = Callable[[Any, TransformCall], str]


def words_of(transform: Any, decision: TransformCall) -> str:
    """Describe the sampled parameters; empty for a transform without any."""
    name = type(transform).__name__
    if name in PHRASES and type(transform).__module__.startswith("albumentations."):
        try:
            return PHRASES[name](transform, decision)
        except (KeyError, TypeError, ValueError, IndexError):  # other parameters than this version has
            return listed(decision.params)
    return listed(decision.params)


def listed(params: Mapping[str, Any]) -> str:
    """Write parameters as ``name=value``; large arrays are left out."""
    shown = [
        f"{name}={text}" for name, value in params.items() if name not in UNSAID and (text := short(value))
    ]
    return shortened(", ".join(shown))


def shortened(text: str) -> str:
    """Cut a text that is too long for a caption."""
    text = one_line(text)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def short(value: Any) -> str:
    """Format a value in short; empty for None and for values that are too long."""
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.size <= MOST_VALUES else None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | str):
        return str(value)
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        inner = [f"{name} {text}" for name, one in value.items() if (text := short(one))]
        return f"({', '.join(inner)})" if 0 < len(inner) <= MOST_VALUES else ""
    if isinstance(value, list | tuple) and 0 < len(value) <= MOST_VALUES:
        return f"({', '.join(short(one) for one in value)})"
    return ""


def _crop(_: Any, decision: TransformCall) -> str:
    x0, y0, x1, y1 = (int(edge) for edge in decision.params["crop_coords"])
    padded = ", after padding" if decision.params.get("pad_params") else ""
    return f"{x1 - x0}x{y1 - y0} at ({x0}, {y0}){padded}"


def _crop_and_resize(transform: Any, decision: TransformCall) -> str:
    x0, y0, x1, y1 = (int(edge) for edge in decision.params["crop_coords"])
    share = (x1 - x0) * (y1 - y0) / (decision.size[0] * decision.size[1])
    return f"{100 * share:.0f} % of the area at ({x0}, {y0}), {_to_size(transform, decision)}"


def _to_size(transform: Any, decision: TransformCall) -> str:
    height, width = output_size(transform, decision.params, decision.size)
    return f"to {width}x{height}"


def _pad(_: Any, decision: TransformCall) -> str:
    names = {"left": "pad_left", "top": "pad_top", "right": "pad_right", "bottom": "pad_bottom"}
    added = [
        f"{side} {decision.params[name]}" for side, name in names.items() if decision.params.get(name, 0) > 0
    ]
    return ", ".join(added) or "nothing to add"


def _degrees(angle: float) -> str:
    return (
        f"{abs(angle):.1f}° {'counter-clockwise' if angle > 0 else 'clockwise'}"
        if abs(angle) >= 0.05
        else "0°"
    )


def _turned(_: Any, decision: TransformCall) -> str:
    matrix = decision.params["matrix"]  # of places in the picture, whose y grows downwards
    return _degrees(-math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))


def _affine(_: Any, decision: TransformCall) -> str:
    scale = decision.params.get("scale") or {"x": 1.0, "y": 1.0}
    x, y = float(scale["x"]), float(scale["y"])
    scaled = f"scale {x:.2f}" if abs(x - y) < 0.005 else f"scale {x:.2f} wide, {y:.2f} high"
    return f"{_degrees(float(decision.params['rotate']))}, {scaled}"


def _quarters(_: Any, decision: TransformCall) -> str:
    return f"{90 * int(decision.params['factor'])}° counter-clockwise" if decision.params["factor"] else "0°"


def _of_square(_: Any, decision: TransformCall) -> str:
    element = str(decision.params["group_element"])
    names = {"e": "unchanged", "h": "flipped sideways", "v": "flipped upside down", "t": "transposed"}
    return names.get(element, element)


def _contrast(_: Any, decision: TransformCall) -> str:
    return f"contrast {float(decision.params['alpha']):.2f}, brightness {float(decision.params['beta']):+.0f}"


def _holes(_: Any, decision: TransformCall) -> str:
    num = len(decision.params["holes"])
    return f"{num} rectangle{'' if num == 1 else 's'}"


def _kernel(_: Any, decision: TransformCall) -> str:
    kernel = np.asarray(decision.params["kernel"])
    return f"kernel {kernel.shape[0]}x{kernel.shape[-1] if kernel.ndim > 1 else kernel.shape[0]}"


def _order(_: Any, decision: TransformCall) -> str:
    return "to " + "".join("RGB"[int(number)] for number in decision.params["channels_shuffled"])


PHRASES: Mapping[str, Phrase] = {
    **dict.fromkeys(CROPS, _crop),
    **dict.fromkeys(CROPS_AND_RESIZES, _crop_and_resize),
    **dict.fromkeys(RESIZES, _to_size),
    **dict.fromkeys(("Pad", "PadIfNeeded"), _pad),
    "Rotate": _turned,
    **dict.fromkeys(("Affine", "SafeRotate", "ShiftScaleRotate"), _affine),
    "RandomRotate90": _quarters,
    **dict.fromkeys(("D4", "SquareSymmetry"), _of_square),
    "RandomBrightnessContrast": _contrast,
    **dict.fromkeys(("CoarseDropout", "Erasing", "GridDropout"), _holes),
    **dict.fromkeys(("Blur", "GaussianBlur", "MotionBlur"), _kernel),
    "ChannelShuffle": _order,
    **dict.fromkeys(("Equalize", "Perspective"), lambda *_: ""),
}
