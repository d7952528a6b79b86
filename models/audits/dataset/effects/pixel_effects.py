"""Effects of color steps on pixels, beside the same view without these steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .....pipeline.geometry import Size
    from .....pipeline.transform.params import TransformCall

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""


@dataclass(frozen=True)
class PixelEffects:
    """Effects of the color steps of a view on its pixels."""

    size: Size
    """Height and width of the output."""
    clipped: float | None
    """Share of pixels with a channel that is 0 or 255 with the color steps and not without them; None where the output is not
    uint8 of one or three channels."""
    clipped_by: int
    """Number of the call that clips the most; -1 if none does."""
    brightness: float | None
    """Mean luma of the output, in levels; None likewise."""
    brightness_change: float | None
    """Its difference from the view without the color steps."""


def pixel_effects(leaves: Sequence[Any], calls: Sequence[TransformCall], image: NDArray[Any]) -> PixelEffects:
    """Apply the recorded steps, and those of them that are geometric.

    Args:
        leaves: the transforms of the policy, by the numbers of the calls.
        calls: the recorded steps.
        image: uint8 RGB (H, W, 3).
    """
    import albumentations

    full = plain = image
    worst, clipped_by = 0.0, -1
    for number, call in enumerate(calls):
        leaf = leaves[call.transform_index]
        before = full
        full = leaf.apply(np.ascontiguousarray(before), **call.params)
        if isinstance(leaf, albumentations.DualTransform):
            plain = full if plain is before else leaf.apply(np.ascontiguousarray(plain), **call.params)
        elif (increase := _share_clipped(full) - _share_clipped(before)) > worst:
            worst, clipped_by = increase, number
    size = (int(full.shape[0]), int(full.shape[1]))
    if not _is_measured(full) or full.shape != plain.shape:
        return PixelEffects(size, None, -1, None, None)
    newly = 0.0 if full is plain else _share(cv2.bitwise_and(cv2.bitwise_not(_kept(full)), _kept(plain)))
    brightness = _brightness(full)
    return PixelEffects(size, newly, clipped_by, brightness, brightness - _brightness(plain))


def _is_measured(image: NDArray[Any]) -> bool:
    return image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2] in (1, 3))


def _kept(image: NDArray[Any]) -> NDArray[Any]:
    """Return 255 for pixels of which no channel is 0 or 255, else 0."""
    return np.asarray(cv2.inRange(np.ascontiguousarray(image), (1, 1, 1, 1), (254, 254, 254, 254)))


def _share(marked: NDArray[Any]) -> float:
    return float(cv2.countNonZero(marked) / marked.size)


def _share_clipped(image: NDArray[Any]) -> float:
    return 1 - _share(_kept(image)) if _is_measured(image) else 0.0


def _brightness(image: NDArray[Any]) -> float:
    means = np.asarray(cv2.mean(np.ascontiguousarray(image)))
    return float(means[:3] @ LUMA) if image.ndim == 3 and image.shape[2] == 3 else float(means[0])
