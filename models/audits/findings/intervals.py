"""Intervals of 95 % for proportions and means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
NUM_SAMPLES = 2000
CHUNK_VALUES = 4_000_000
"""Resampled values that are held at once."""

Interval = tuple[float, float]


def wilson(num_positive: int, num: int) -> Interval | None:
    """Return the Wilson score interval of a proportion (Wilson, JASA 1927, equation 2); None if ``num`` is 0."""
    if not num:
        return None
    share = num_positive / num
    middle = share + Z_95**2 / (2 * num)
    half = Z_95 * math.sqrt(share * (1 - share) / num + Z_95**2 / (4 * num**2))
    scale = 1 + Z_95**2 / num
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bootstrap_mean(
    values: NDArray[np.floating[Any]], generator: np.random.Generator, num_samples: int = NUM_SAMPLES
) -> Interval | None:
    """Return the percentile bootstrap interval of the mean (Efron 1979); None without values."""
    if not len(values):
        return None
    return _limits(_resampled_means(values, generator, num_samples))


def bootstrap_difference(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    generator: np.random.Generator,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """Return the percentile bootstrap interval of ``mean(first) - mean(second)``, resampled independently.

    None if one of them is empty. For pairs, use `bootstrap_mean` of their differences.
    """
    if not len(first) or not len(second):
        return None
    means = _resampled_means(first, generator, num_samples)
    return _limits(means - _resampled_means(second, generator, num_samples))


def ratio_interval(
    parts: NDArray[np.number[Any]],
    totals: NDArray[np.number[Any]],
    generator: np.random.Generator,
    num_samples: int = NUM_SAMPLES,
) -> Interval | None:
    """Return the percentile bootstrap interval of ``sum(parts) / sum(totals)`` over groups; None without groups.

    Args:
        parts: of each group, such as the objects of an image that show something.
        totals: of each group, above 0.
        generator: resamples the groups.
        num_samples: resamples.
    """
    num = len(totals)
    if not num:
        return None
    values = np.stack([parts, totals], axis=1).astype(np.float64)
    size = max(1, CHUNK_VALUES // num)
    counts = [min(size, num_samples - start) for start in range(0, num_samples, size)]
    sums = [values[generator.integers(0, num, (count, num))].sum(axis=1) for count in counts]
    resampled = np.concatenate(sums)
    return _limits(resampled[:, 0] / resampled[:, 1])


def _resampled_means(
    values: NDArray[np.floating[Any]], generator: np.random.Generator, num_samples: int
) -> NDArray[np.float64]:
    size = max(1, CHUNK_VALUES // len(values))
    counts = [min(size, num_samples - start) for start in range(0, num_samples, size)]
    exact = np.asarray(values, np.float64)
    return np.concatenate(
        [exact[generator.integers(0, len(exact), (count, len(exact)))].mean(axis=1) for count in counts]
    )


def _limits(means: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return low, high
