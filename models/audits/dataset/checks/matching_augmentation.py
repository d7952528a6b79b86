"""Augmentation that covers the difference of a measure between the training images and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .....pipeline.policy.spec import TransformSpec
from ..effects.plan_steps import section_yaml

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

MARGIN = 0.05
"""Of the range of a factor, on both sides."""
_Options = Callable[["Values", "Values"], dict[str, Any] | None]
"""(values of the training images, values of the others) -> options; None where no augmentation goes in that direction."""


def augmentation_yaml(
    names: Sequence[str], training: Mapping[str, Values], others: Mapping[str, Values]
) -> str:
    """Return the section ``augment`` with a step for the first measures for which there is one; empty for none.

    Args:
        names: measures that differ, the most different first.
        training: values of the training images by name, without NaN.
        others: values of the images that training should cover.
    """
    steps: dict[str, TransformSpec] = {}
    for name in names:
        transform, options_of = _STEPS.get(name, ("", None))
        if options_of is None or transform in steps:
            continue
        options = options_of(training[name], others[name])
        if options is not None:
            steps[transform] = TransformSpec(name=transform, options={**options, "p": 0.5})
    return section_yaml({"augment": list(steps.values())}) if steps else ""


def _brightness(training: Values, others: Values) -> dict[str, Any]:
    shift = (float(np.median(others)) - float(np.median(training))) / 255
    return {"brightness_limit": _around(shift), "contrast_limit": 0.0}


def _contrast(training: Values, others: Values) -> dict[str, Any]:
    factor = float(np.median(others)) / max(1.0, float(np.median(training)))
    return {"brightness_limit": 0.0, "contrast_limit": _around(factor - 1)}


def _saturation(training: Values, others: Values) -> dict[str, Any]:
    shift = (float(np.median(others)) - float(np.median(training))) * 255
    limits = [min(0, round(shift)) - 5, max(0, round(shift)) + 5]
    return {"hue_shift_limit": 0, "sat_shift_limit": limits, "val_shift_limit": 0}


def _noise(training: Values, others: Values) -> dict[str, Any] | None:
    added = float(np.median(others)) ** 2 - float(np.median(training)) ** 2
    return {"std_range": [0.0, round(min(1.0, added**0.5 / 255), 4)]} if added > 0 else None


def _blur(training: Values, others: Values) -> dict[str, Any] | None:
    return {"sigma_limit": [0.5, 2.0]} if np.median(others) < np.median(training) else None


def _quality(_: Values, others: Values) -> dict[str, Any]:
    low, high = np.clip(np.quantile(others, (0.05, 0.95)), 1, 100).round().astype(int).tolist()
    return {"quality_range": [low, high]}


def _stronger_compression(training: Values, others: Values) -> dict[str, Any] | None:
    return {"quality_range": [40, 95]} if np.median(others) > np.median(training) else None


def _around(shift: float) -> list[float]:
    """Return limits from no change to a shift, with a margin; Albumentations takes -1 to 1."""
    low, high = min(0.0, shift) - MARGIN, max(0.0, shift) + MARGIN
    return [round(max(-1.0, low), 3), round(min(1.0, high), 3)]


_STEPS: Mapping[str, tuple[str, _Options]] = {
    "brightness": ("RandomBrightnessContrast", _brightness),
    **{f"mean_{channel}": ("RandomBrightnessContrast", _brightness) for channel in "rgb"},
    **{f"brightness_p{percent}": ("RandomBrightnessContrast", _brightness) for percent in (1, 5, 50, 95, 99)},
    "contrast": ("RandomBrightnessContrast", _contrast),
    "saturation": ("HueSaturationValue", _saturation),
    "noise": ("GaussNoise", _noise),
    "sharpness": ("GaussianBlur", _blur),
    "working_sharpness": ("GaussianBlur", _blur),
    "jpeg_quality": ("ImageCompression", _quality),
    "blockiness": ("ImageCompression", _stronger_compression),
}
"""Transforms by measure."""
