"""False-discovery rate of many tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def q_values(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Adjust p-values of any shape: the smallest false-discovery rate at which each test is rejected.

    Benjamini and Hochberg, JRSS B 1995: the i-th smallest of m p-values becomes the minimum over j >= i of ``p_j m / j``.
    NaN stands for a test that was not made; it stays NaN and does not count.
    """
    flat = np.asarray(p_values, np.float64).ravel()
    made = np.flatnonzero(~np.isnan(flat))
    order = made[np.argsort(flat[made], kind="stable")]
    scaled = flat[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted = np.full(len(flat), np.nan)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted.reshape(np.shape(p_values))
