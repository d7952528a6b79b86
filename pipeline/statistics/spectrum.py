"""Measures of spatial frequencies on tiles at full resolution."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.fft

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMES = ("low_frequency", "mid_frequency", "high_frequency", "spectral_slope", "spectral_sharpness")
MIN_SIDE = 16
"""Smaller images have no spectrum."""
LOW, HIGH = 1 / 16, 1 / 4
"""Borders between low, mid and high frequencies in cycles per pixel; the highest along an axis is 1/2."""
MIN_POWER = 1e-3
"""Mean power per pixel, in squared levels, of what counts as constant."""
NUM_RINGS = 32
"""Ranges of frequencies, each 1/64 cycle per pixel wide, whose mean power the slope is fitted to."""
SHARP_SHARE = 1000.0
MIN_SHARE = 1e-12
"""Share of the power that counts as none, which is less than the rounding of the transform."""


def spectrum_measures(tiles: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure the mean power spectrum of tiles (N, h, w), means removed, with a Hann window (Welch 1967).

    ``low_frequency``, ``mid_frequency``, ``high_frequency``: shares of the power up to 1/16, up to 1/4 and above 1/4 cycle per
    pixel, 0..1. ``spectral_slope``: exponent of the power law of the mean power by frequency, about -2 for photos in focus
    (Field 1987), lower for blur, 0 for noise. ``spectral_sharpness``: share of the frequencies whose amplitude is above 1/1000
    of the largest, 0..1 (De and Masilamani 2013). All None for images of less than 16 px a side and for constant ones.
    """
    count, height, width = tiles.shape
    if min(height, width) < MIN_SIDE:
        return dict.fromkeys(NAMES)
    window, weights, rings, num_frequencies = _layout(height, width)
    values = tiles.reshape(count, -1).astype(np.float32)
    values -= (values @ np.ones(height * width, np.float32) / (height * width))[:, None]
    spectrum = scipy.fft.rfft2(values.reshape(tiles.shape) * window, overwrite_x=True)
    power = (spectrum.real**2 + spectrum.imag**2).sum(axis=0)
    by_ring = np.asarray(np.bincount(rings, (power * weights).ravel(), NUM_RINGS + 2), np.float64)
    total = float(by_ring.sum())
    if total <= MIN_POWER * count * (height * width) ** 2:
        return dict.fromkeys(NAMES)
    low, high = (round(border * 2 * NUM_RINGS) for border in (LOW, HIGH))
    shares = [float(part.sum()) / total for part in (by_ring[:low], by_ring[low:high], by_ring[high:])]
    sharp = float(weights[power > power.max() / SHARP_SHARE**2].sum()) / (height * width)
    return dict(zip(NAMES, (*shares, _slope(by_ring, num_frequencies), sharp), strict=True))


@lru_cache(16)
def _layout(
    height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.intp], NDArray[np.float64]]:
    """Return the window, the weight and the ring of each coefficient, and the number of frequencies in each ring.

    The transform of real values leaves out the mirrored half, so that most coefficients count twice.
    """
    window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
    frequency = np.hypot(scipy.fft.fftfreq(height)[:, None], scipy.fft.rfftfreq(width))
    weights: NDArray[np.float32] = np.full(frequency.shape, 2, np.float32)
    weights[:, 0] = 1
    if width % 2 == 0:
        weights[:, -1] = 1
    rings = np.asarray(np.minimum(frequency * 2 * NUM_RINGS, NUM_RINGS + 1), np.intp).ravel()
    num_frequencies = np.asarray(np.bincount(rings, weights.ravel(), NUM_RINGS + 2), np.float64)
    return window, weights, rings, num_frequencies


def _slope(by_ring: NDArray[np.float64], num_frequencies: NDArray[np.float64]) -> float:
    """Fit a line to the logarithms of mean power and frequency by least squares, without the lowest ring and the corners."""
    used = np.flatnonzero(num_frequencies[:NUM_RINGS])[1:]
    power = np.maximum(by_ring[used], by_ring.sum() * MIN_SHARE) / num_frequencies[used]
    x = np.log(used + 0.5)
    x -= x.mean()
    return float(x @ np.log(power)) / float(x @ x)
