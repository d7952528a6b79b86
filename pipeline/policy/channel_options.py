"""Validate options that hold a value for each channel, which Albumentations checks only on the first image."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import PlanError

NUM_CHANNELS, BITS_PER_LEVEL = 3, 8
_HOLES = "albumentations.augmentations.dropout."
_MAX_BORDER_LEVELS = 4
"""OpenCV fills a border with a ``cv::Scalar``, which has four values."""


def check_channels(transform: Any, where: str) -> None:
    """Check that ``fill`` and ``num_bits`` of an Albumentations transform fit an RGB image.

    Raises:
        PlanError: one has values for another number of channels, a hole would be filled with a level outside 0 to 255, or more
            than 8 bits of a level would be kept.
    """
    _check_bits(getattr(transform, "num_bits", None), f"{where}.num_bits")
    fill = getattr(transform, "fill", None)
    if fill is None or isinstance(fill, str):
        return
    levels = np.ravel(fill)
    is_hole = type(transform).__module__.startswith(_HOLES)
    if levels.size not in (1, NUM_CHANNELS) if is_hole else levels.size > _MAX_BORDER_LEVELS:
        raise PlanError(
            f"{where}.fill: expected one level, or one for each of three channels, got {levels.size}; correct it"
        )
    wrong = levels[(levels <= -1) | (levels >= 256)]
    if is_hole and wrong.size:
        raise PlanError(f"{where}.fill: expected levels from 0 to 255, got {wrong[0]:g}; correct it")


def _check_bits(num_bits: Any, where: str) -> None:
    if isinstance(num_bits, list) and len(num_bits) != NUM_CHANNELS:
        raise PlanError(
            f"{where}: expected one range, or one for each of three channels, got {len(num_bits)}; correct it"
        )
    if num_bits is not None and (most := np.max(num_bits)) > BITS_PER_LEVEL:
        raise PlanError(f"{where}: expected up to {BITS_PER_LEVEL} bits, got {most}; correct it")
