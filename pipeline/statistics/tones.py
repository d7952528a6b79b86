"""Measures of brightness and color."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_HISTOGRAM_BINS = 16
DARK, LIGHT = 5, 250
"""Levels up to which and from which on a pixel counts as clipped: encoders move clipped levels a little."""
PERCENTILES = (1, 5, 50, 95, 99)
MIDDLE_GRAY = 0.18
"""Luminance of the gray card that light meters expect (ISO 2720)."""
_LEVELS = np.arange(256.0)


def histogram_of(plane: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count the pixels of each of the 256 levels."""
    return np.asarray(cv2.calcHist([plane], [0], None, [256], (0, 256)), np.float64).ravel()


def tone_measures(gray_counts: NDArray[np.float64]) -> dict[str, Any]:
    """Measure brightness by the histogram of luma; levels are 0..255.

    ``brightness`` and ``contrast``: mean and standard deviation. ``share_dark`` and ``share_light``: shares of pixels up to
    ``DARK`` and from ``LIGHT`` on, 0..1. ``brightness_pN``: percentiles, the lowest level that N % of the pixels do not
    exceed. ``exposure``: mean luminance, linear by IEC 61966-2-1, in stops above ``MIDDLE_GRAY`` (0 is a well exposed gray
    card; at least -12). ``entropy``: Shannon's, of the levels, 0..8 bits. ``histogram``: shares of 16 equal ranges.
    """
    shares = gray_counts / gray_counts.sum()
    mean, square, luminance, dark, light = (shares @ _TONE_WEIGHTS).tolist()
    present = shares[shares > 0]
    cumulative = np.cumsum(gray_counts)
    percentiles = np.searchsorted(cumulative, cumulative[-1] * np.asarray(PERCENTILES) / 100).tolist()
    return {
        "brightness": mean,
        "contrast": max(0.0, square - mean**2) ** 0.5,
        "share_dark": dark,
        "share_light": light,
        **{f"brightness_p{percent}": level for percent, level in zip(PERCENTILES, percentiles, strict=True)},
        "exposure": max(-12.0, math.log2(max(luminance, 1e-9) / MIDDLE_GRAY)),
        "entropy": max(0.0, -float(present @ np.log2(present))),
        "histogram": shares.reshape(NUM_HISTOGRAM_BINS, -1).sum(axis=1).tolist(),
    }


def channel_measures(sampled_rows: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure red, green and blue of rows at full resolution.

    ``mean_r`` ... ``std_b``: means and standard deviations, 0..255. ``white_balance_red`` and ``white_balance_blue``: means
    of red and blue relative to green, as binary logarithms; 0 for a scene that is gray on average (the gray-world
    assumption, Buchsbaum 1980), -8..8.
    """
    means, deviations = (values.ravel().tolist() for values in cv2.meanStdDev(sampled_rows))
    red, green, blue = np.log2(np.asarray(means) + 1).tolist()
    return {
        **{f"mean_{name}": mean for name, mean in zip("rgb", means, strict=True)},
        **{f"std_{name}": deviation for name, deviation in zip("rgb", deviations, strict=True)},
        "white_balance_red": red - green,
        "white_balance_blue": blue - green,
    }


def color_measures(color_hwc: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure colors on the small color copy.

    ``colorfulness``: Hasler and Suesstrunk 2003, equation 13, with red minus green and yellow minus blue; 0 for gray, about
    109 for extremely colorful images. ``saturation``: mean saturation of the HSV model, 0..1.
    """
    red, green, blue = (plane.astype(np.int16) for plane in cv2.split(color_hwc))
    means, deviations = zip(
        *(_mean_and_deviation(plane) for plane in (red - green, red + green - 2 * blue)), strict=True
    )
    # Twice yellow minus blue is used, as it is a whole number.
    spread = np.hypot(deviations[0], deviations[1] / 2)
    offset = np.hypot(means[0], means[1] / 2)
    saturation = cv2.cvtColor(color_hwc, cv2.COLOR_RGB2HSV)[..., 1]
    return {
        "colorfulness": float(spread + 0.3 * offset),
        "saturation": float(saturation.mean(dtype=np.float64)) / 255,
    }


def is_gray(image: NDArray[np.uint8], color: NDArray[np.uint8]) -> bool:
    """Return whether red, green and blue are equal in every pixel; the small color copy rules most images out."""
    return all(
        np.array_equal(red, green) and np.array_equal(green, blue)
        for red, green, blue in (cv2.split(pixels) for pixels in (color, image))
    )


def _linear_levels() -> NDArray[np.float64]:
    """Return the luminance of each level of sRGB, 0..1."""
    values = _LEVELS / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


_TONE_WEIGHTS = np.stack([_LEVELS, _LEVELS**2, _linear_levels(), _LEVELS <= DARK, _LEVELS >= LIGHT], axis=1)
"""Weights of each level in mean, mean square, luminance and clipped shares, (256, 5)."""


def _mean_and_deviation(plane: NDArray[np.int16]) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])
