"""Differences of accuracy between two models on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..findings.intervals import NUM_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy of the second audit minus that of the first."""

    num_images: int
    first: float
    second: float
    value: float
    low: float
    high: float
    """95 % percentile bootstrap interval (Efron 1979)."""
    p: float | None = None
    """Of McNemar's exact test; None if the images are not the same."""


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], generator: np.random.Generator
) -> Difference | None:
    """Compare which of the same images are correct; None without images.

    A resample of images draws how many of them only the first and only the second has correct: a multinomial count.
    """
    num = len(first)
    if not num:
        return None
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    shares = [only_first / num, only_second / num, (num - only_first - only_second) / num]
    drawn = generator.multinomial(num, shares, NUM_SAMPLES)
    low, high = np.quantile((drawn[:, 1] - drawn[:, 0]) / num, (0.025, 0.975)).tolist()
    return Difference(
        num,
        float(first.mean()),
        float(second.mean()),
        (only_second - only_first) / num,
        low,
        high,
        mcnemar(only_first, only_second),
    )


def unpaired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], generator: np.random.Generator
) -> Difference | None:
    """Compare shares of correct images that need not be the same, resampled independently; None if one has no images."""
    if not len(first) or not len(second):
        return None
    shares = float(first.mean()), float(second.mean())
    drawn = [
        generator.binomial(len(right), share, NUM_SAMPLES) / len(right)
        for right, share in zip((first, second), shares, strict=True)
    ]
    low, high = np.quantile(drawn[1] - drawn[0], (0.025, 0.975)).tolist()
    return Difference(len(second), *shares, shares[1] - shares[0], low, high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test (McNemar, Psychometrika 1947): two-sided binomial with p 0.5."""
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_second, total, 0.5).pvalue) if total else 1.0
