"""Bilinear upsampling as a matrix, so that sums over pixels are computed from the small map.

With ``U`` the matrix of an axis, the upsampled map is ``U_rows @ map @ U_columns.T``, and its sum over a region with pixel
weights ``R`` is the sum of ``map * (U_rows.T @ R @ U_columns)``. Nothing is upsampled.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]
"""Height and width."""


@lru_cache(maxsize=64)
def axis_matrix(cells: int, pixels: int) -> NDArray[np.float64]:
    """Return the matrix (pixels, cells) of one-dimensional bilinear resizing with half-pixel centres, as OpenCV's.

    It equals ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``. Read-only.
    """
    position = np.maximum((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0)
    lower = np.minimum(position.astype(np.int64), cells - 1)
    upper = np.minimum(lower + 1, cells - 1)
    matrix = np.zeros((pixels, cells))
    np.add.at(matrix, (np.arange(pixels), lower), 1 - (position - lower))
    np.add.at(matrix, (np.arange(pixels), upper), position - lower)
    matrix.flags.writeable = False
    return matrix


def cell_weights(pixel_weights: NDArray[Any], map_size: Size) -> NDArray[np.float64]:
    """Return the weights of cells whose sum over a small map is the weighted sum over the upsampled map.

    Args:
        pixel_weights: (..., H, W), such as a mask; 1 counts a pixel fully.
        map_size: rows and columns of the map.

    Returns:
        (..., h, w).
    """
    height, width = pixel_weights.shape[-2:]
    rows, columns = axis_matrix(map_size[0], height), axis_matrix(map_size[1], width)
    return np.asarray(rows.T @ (pixel_weights.astype(np.float64) @ columns))


def covered(start: float, stop: float, pixels: int) -> NDArray[np.float64]:
    """Return how much of each pixel of an axis lies between two positions, 0..1."""
    left = np.arange(pixels)
    return np.asarray(np.clip(np.minimum(left + 1, stop) - np.maximum(left, start), 0, 1), np.float64)


def box_weights(box: tuple[float, float, float, float], image_size: Size) -> NDArray[np.float64]:
    """Return the pixel weights (H, W) of a box x0, y0, x1, y1; pixels that it cuts count in part."""
    x0, y0, x1, y1 = box
    return np.outer(covered(y0, y1, image_size[0]), covered(x0, x1, image_size[1]))
