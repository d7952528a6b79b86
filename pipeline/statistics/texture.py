"""Measures of texture on the gray working copy: co-occurrence of levels and local binary patterns."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .tones import histogram_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_LEVELS = 16
"""Gray levels of the co-occurrence matrix."""
NUM_PATTERNS = 10
_NEIGHBORS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""Rows and columns of the neighbors of the middle pixel of 3x3, in a circle."""
_ROWS, _COLUMNS = np.indices((NUM_LEVELS, NUM_LEVELS)).astype(np.float64)


def glcm_measures(working_gray: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure the symmetric co-occurrence matrix of neighboring pixels in four directions, of 16 levels.

    ``glcm_contrast`` (0..225), ``glcm_homogeneity`` (0..1), ``glcm_energy`` (0..1) and ``glcm_correlation`` (-1..1, 1 for
    constant images), as in Haralick et al. 1973 and scikit-image's ``graycoprops``. The matrix is summed over the directions.
    """
    matrix = cooccurrence(working_gray)
    total = matrix.sum()
    shares = matrix / total if total else np.eye(NUM_LEVELS) / NUM_LEVELS
    distance = (_ROWS - _COLUMNS) ** 2
    marginal = shares.sum(axis=0)
    levels = np.arange(NUM_LEVELS)
    mean = float(marginal @ levels)
    variance = float(marginal @ (levels - mean) ** 2)
    covariance = float((shares * (_ROWS - mean) * (_COLUMNS - mean)).sum())
    return {
        "glcm_contrast": float((shares * distance).sum()),
        "glcm_homogeneity": float((shares / (1 + distance)).sum()),
        "glcm_energy": float(np.sqrt((shares**2).sum())) if total else 1.0,
        "glcm_correlation": covariance / variance if total and variance > 1e-12 else 1.0,
    }


def cooccurrence(working_gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count pairs of neighboring levels at 0, 45, 90 and 135 degrees, both ways; (16, 16)."""
    high = working_gray & 0xF0
    low = working_gray >> 4
    counts = np.zeros(256)
    for one, other in (
        (high[:, :-1], low[:, 1:]),
        (high[1:, :-1], low[:-1, 1:]),
        (high[:-1], low[1:]),
        (high[:-1, :-1], low[1:, 1:]),
    ):
        if one.size:
            counts += histogram_of(np.asarray(one | other, np.uint8))
    matrix = counts.reshape(NUM_LEVELS, NUM_LEVELS)
    return np.asarray(matrix + matrix.T)


def lbp_histogram(working_gray: NDArray[np.uint8]) -> list[float]:
    """Return the shares of rotation-invariant uniform local binary patterns of the 8 neighbors, 10 values.

    Number N of the first nine: uniform patterns, with at most two changes between neighbors in a circle, in which N
    neighbors are at least as bright as the middle; the last: all other patterns (Ojala, Pietikainen and Maenpaa 2002,
    equation 9, on the 3x3 grid without interpolation). Zeros for images without inner pixels.
    """
    height, width = working_gray.shape
    if height < 3 or width < 3:
        return [0.0] * NUM_PATTERNS
    middle = working_gray[1:-1, 1:-1]
    codes = np.zeros(middle.shape, np.uint8)
    for bit, (row, column) in enumerate(_NEIGHBORS):
        neighbor = working_gray[row : row + height - 2, column : column + width - 2]
        codes |= (neighbor >= middle).view(np.uint8) << bit
    counts = np.bincount(_pattern_of_code(), histogram_of(codes), NUM_PATTERNS)
    return [float(share) for share in counts / middle.size]


@lru_cache(1)
def _pattern_of_code() -> NDArray[np.int64]:
    """Return the number of the pattern of each 8-bit code."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), NUM_PATTERNS - 1)
