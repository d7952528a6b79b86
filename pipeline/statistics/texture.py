"""Measures of texture on the gray working copy: co-occurrence of levels and local binary patterns."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .tones import histogram_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_LEVELS = 16
"""Gray levels of the co-occurrence matrix."""
NUM_PATTERNS = 10
_NEIGHBORS = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
"""Rows and columns of the neighbors of the middle pixel of 3x3, in a circle."""
_ROWS, _COLUMNS = (levels.ravel().astype(np.float64) for levels in np.indices((NUM_LEVELS, NUM_LEVELS)))
_GLCM_WEIGHTS = np.stack(
    [(_ROWS - _COLUMNS) ** 2, 1 / (1 + (_ROWS - _COLUMNS) ** 2), _ROWS, _ROWS**2, _ROWS * _COLUMNS], axis=1
)
"""Weights of each pair of levels in contrast, homogeneity, mean, mean square and mean product, (256, 5)."""


def glcm_measures(working_gray: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure the symmetric co-occurrence matrix of neighboring pixels in four directions, of 16 levels.

    ``glcm_contrast`` (0..225), ``glcm_homogeneity`` (0..1), ``glcm_energy`` (0..1) and ``glcm_correlation`` (-1..1, 1 for
    constant images), as in Haralick et al. 1973 and scikit-image's ``graycoprops``. The matrix is summed over the directions.
    """
    matrix = cooccurrence(working_gray)
    total = matrix.sum()
    if not total:
        return {"glcm_contrast": 0.0, "glcm_homogeneity": 1.0, "glcm_energy": 1.0, "glcm_correlation": 1.0}
    shares = matrix.ravel() / total
    contrast, homogeneity, mean, square, product = (shares @ _GLCM_WEIGHTS).tolist()
    variance = square - mean**2
    return {
        "glcm_contrast": contrast,
        "glcm_homogeneity": homogeneity,
        "glcm_energy": float(np.sqrt(shares @ shares)),
        "glcm_correlation": (product - mean**2) / variance if variance > 1e-9 else 1.0,
    }


def cooccurrence(working_gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Count pairs of neighboring levels at 0, 45, 90 and 135 degrees, both ways; (16, 16)."""
    high = working_gray & 0xF0
    low = working_gray >> 4
    sides = (
        (high[:, :-1], low[:, 1:]),
        (high[1:, :-1], low[:-1, 1:]),
        (high[:-1], low[1:]),
        (high[:-1, :-1], low[1:, 1:]),
    )
    pairs = [np.ravel(cv2.bitwise_or(*both)) for both in sides if both[0].size]
    counts = histogram_of(np.concatenate(pairs)) if pairs else np.zeros(NUM_LEVELS**2)
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
    for row, column in _NEIGHBORS:
        neighbor = working_gray[row : row + height - 2, column : column + width - 2]
        codes += codes
        codes -= np.asarray(
            cv2.compare(neighbor, middle, cv2.CMP_GE), np.uint8
        )  # 255, that is -1, where it is
    counts = np.bincount(_pattern_of_code(), histogram_of(codes), NUM_PATTERNS)
    return [float(share) for share in counts / middle.size]


@lru_cache(1)
def _pattern_of_code() -> NDArray[np.int64]:
    """Return the number of the pattern of each 8-bit code."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), NUM_PATTERNS - 1)
