"""Pairs of images whose features of a network are alike: exact, by products of blocks of the matrix of features."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .hamming import Pairs

BLOCK_ROWS = 2048
"""Rows whose features are compared at once with as many others."""
MAX_ROWS = 100_000
"""Most images whose features are compared: the time grows with the square, to minutes here."""


def feature_pairs(features: NDArray[np.float32], least_cosine: float) -> Iterator[Pairs]:
    """Yield each pair of rows whose features have at least a cosine similarity, in chunks; rows with NaN have no pairs.

    None are yielded above `MAX_ROWS` rows.
    """
    if len(features) > MAX_ROWS:
        return
    lengths = np.linalg.norm(features, axis=1)
    rows = np.flatnonzero(np.isfinite(lengths) & (lengths > 0))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = _unit(features, lengths, rows[start : start + BLOCK_ROWS])
        for other_start in range(start, len(rows), BLOCK_ROWS):
            others = _unit(features, lengths, rows[other_start : other_start + BLOCK_ROWS])
            first, second = np.nonzero(block @ others.T >= least_cosine)
            first, second = first + start, second + other_start
            is_new = first < second
            if is_new.any():
                yield rows[first[is_new]], rows[second[is_new]]


def _unit(
    features: NDArray[np.float32], lengths: NDArray[np.float32], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    return np.asarray(features[rows] / lengths[rows, None], np.float32)
