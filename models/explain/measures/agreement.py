"""Agreement of two maps of an image: rank correlation, and overlap of their strongest cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOP = 0.1
"""Fraction of the cells that `top_overlaps` compares."""


def rank_correlations(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Return Spearman's rank correlation (N,) of the cells of maps (N, h, w), ties with their mean rank.

    NaN for maps that are constant or not finite. Signed maps also compare evidence against the class.
    """
    from scipy.stats import rankdata

    cells = first.shape[1] * first.shape[2]
    usable = np.isfinite(first).all(axis=(1, 2)) & np.isfinite(second).all(axis=(1, 2))
    ranks = [
        rankdata(np.where(usable[:, None, None], each, 0).reshape(len(each), cells), axis=1) - (cells + 1) / 2
        for each in (first, second)
    ]
    norms = np.sqrt((ranks[0] ** 2).sum(axis=1) * (ranks[1] ** 2).sum(axis=1))
    found = (ranks[0] * ranks[1]).sum(axis=1) / np.where(norms > 0, norms, np.nan)
    return np.asarray(np.where(usable, found, np.nan), np.float64)


def top_overlaps(first: NDArray[Any], second: NDArray[Any], fraction: float = TOP) -> NDArray[np.float64]:
    """Return the share (N,) of the strongest cells of one map that are also among those of the other.

    By chance it is about ``fraction``. Equal values count in reading order; NaN for maps that are constant or not finite.
    """
    cells = first.shape[1] * first.shape[2]
    num = max(1, round(fraction * cells))
    flat = [each.reshape(len(each), cells).astype(np.float64) for each in (first, second)]
    best = [np.argsort(-each, axis=1, kind="stable")[:, :num] for each in flat]
    shared = (best[0][:, :, None] == best[1][:, None, :]).sum(axis=(1, 2)) / num
    usable = [np.isfinite(each).all(axis=1) & (np.ptp(each, axis=1) > 0) for each in flat]
    return np.asarray(np.where(usable[0] & usable[1], shared, np.nan), np.float64)
