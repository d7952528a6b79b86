"""Measures of blur, noise and compression on tiles at full resolution, where these defects are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from .tones import histogram_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .working_copies import WorkingCopies

BLOCK = 8
"""Side in pixels of a block of JPEG."""
_NOISE_FILTER = np.array([1, -2, 1], np.float64)
_NOISE_GAIN = 6.0
"""Square root of the sum of squares of the noise filter: deviation of its response to noise of deviation 1."""
_NORMAL_MEDIAN = 0.6744897501960817
"""Median of the absolute value of a standard normal variable."""
_MIN_STEP = 0.1
"""Levels that are added to mean steps, so that plain images have no extreme ratio."""
MIN_SQUARED_STEP = 0.5
"""Squared levels that are added to mean squared steps, likewise: more than rounding to levels adds to them."""
NOISE_RANGE = 20, 235
"""Mean levels of tiles whose noise is not clipped."""


def defect_measures(copies: WorkingCopies) -> dict[str, Any]:
    """Measure defects on luma: on tiles at full resolution, and on smaller copies.

    ``sharpness``: variance of the Laplacian (4 neighbors) on the tiles, in squared levels, from 0 (Pech-Pacheco et al. 2000);
    low for blurred and for plain images. ``working_sharpness``: the same on the working copy, comparable between images of
    different sizes. ``softness``: see ``softness``, of the halved copy. ``noise``: see ``noise_level``, of all tiles together;
    ``least_noise``: that of the tile with the least mean response, which texture on a part of the image does not increase.
    ``blockiness``: see ``blockiness``.
    """
    tiles = copies.tiles
    stacked = tiles.reshape(-1, tiles.shape[2])
    laplacian = _without_edges(cv2.Laplacian(stacked, cv2.CV_16S), tiles)
    response = _without_edges(cv2.sepFilter2D(stacked, cv2.CV_16S, _NOISE_FILTER, _NOISE_FILTER), tiles)
    absolute = np.asarray(cv2.convertScaleAbs(response), np.uint8)
    plainest = _plainest_tile(tiles, absolute.reshape(len(tiles), -1))
    return {
        "sharpness": _variance(laplacian),
        "working_sharpness": _variance(cv2.Laplacian(copies.working_gray, cv2.CV_16S)),
        "softness": softness(copies.halved_gray),
        "noise": noise_level(histogram_of(absolute)),
        "least_noise": 0.0 if plainest is None else noise_level(histogram_of(plainest)),
        "blockiness": blockiness(tiles),
    }


def noise_level(response_counts: NDArray[np.float64]) -> float:
    """Estimate the standard deviation of the noise, in levels, 0..63.

    The filter of Immerkaer 1996 removes constant areas and straight edges; the median of its absolute response, instead of
    his mean, ignores texture on less than half of the image (Donoho and Johnstone 1994). Noise below a quarter of a level is
    lost in rounding.

    Args:
        response_counts: number of pixels of each absolute response, 0..255; larger ones count as 255.
    """
    cumulative = np.cumsum(response_counts)
    half = cumulative[-1] / 2
    level = int(np.searchsorted(cumulative, half))
    if not level:
        return 0.0
    median = level - 0.5 + float((half - cumulative[level - 1]) / response_counts[level])
    return median / (_NORMAL_MEDIAN * _NOISE_GAIN)


def softness(gray: NDArray[np.uint8]) -> float:
    """Return the mean squared difference of pixels two apart relative to that of neighbors, of the axis where it is larger.

    The variogram (Matheron 1963) at two lags, whose ratio is 1 for noise, 2 for edges (independent steps) and 4 for smooth
    transitions; contrast cancels out. Motion blurs one axis. 1 for plain images and for less than three pixels a side.
    """
    ratios = [1.0]
    for axis, side in enumerate(gray.shape):
        if side > 2:
            near, far = (_mean_squared_step(gray, lag, axis) + MIN_SQUARED_STEP for lag in (1, 2))
            ratios.append(far / near)
    return max(ratios)


def blockiness(tiles: NDArray[np.uint8]) -> float:
    """Return the mean step across the borders of blocks of 8x8 pixels relative to that elsewhere.

    About 1 without blocks, above 1 after strong compression (the differences across and within blocks of Wang, Sheikh and
    Bovik 2002); 1 for images of less than two blocks. Blocks are assumed to begin at the upper left, as in an image that was
    not cropped.
    """
    at_borders = elsewhere = num_borders = num_elsewhere = 0.0
    count, height, width = tiles.shape
    stacked = tiles.reshape(-1, width)
    for axis, side in enumerate((height, width)):
        if side < 2 * BLOCK:
            continue
        if axis == 0:
            differences = cv2.absdiff(stacked[1:], stacked[:-1])
            steps = np.asarray(cv2.reduce(differences, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
            steps = (
                np.append(steps, 0).reshape(count, height)[:, :-1].sum(axis=0)
            )  # without steps between tiles
        else:
            differences = cv2.absdiff(stacked[:, 1:], stacked[:, :-1])
            steps = np.asarray(cv2.reduce(differences, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
        borders = steps[BLOCK - 1 :: BLOCK]
        lines = tiles.size // side
        at_borders, num_borders = at_borders + float(borders.sum()), num_borders + len(borders) * lines
        elsewhere += float(steps.sum() - borders.sum())
        num_elsewhere += (len(steps) - len(borders)) * lines
    if not num_borders:
        return 1.0
    return (at_borders / num_borders + _MIN_STEP) / (elsewhere / num_elsewhere + _MIN_STEP)


def _without_edges(stacked: NDArray[Any], tiles: NDArray[np.uint8]) -> NDArray[Any]:
    """Leave out the pixels at the edges of tiles, whose neighbors belong to other tiles."""
    down, across = (slice(1, -1) if side > 2 else slice(None) for side in tiles.shape[1:])
    inner = stacked.reshape(tiles.shape)[:, down, across]
    return np.ascontiguousarray(inner).reshape(-1, inner.shape[2])


def _plainest_tile(tiles: NDArray[np.uint8], responses: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the responses (N, pixels) of the tile where they are the least on average; None if all tiles are clipped."""
    brightness, means = (
        cv2.reduce(values, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel()
        for values in (tiles.reshape(len(tiles), -1), responses)
    )
    means[(brightness < NOISE_RANGE[0]) | (brightness > NOISE_RANGE[1])] = np.inf
    least = int(means.argmin())
    return responses[least] if np.isfinite(means[least]) else None


def _mean_squared_step(gray: NDArray[np.uint8], lag: int, axis: int) -> float:
    first, second = (gray[lag:], gray[:-lag]) if axis == 0 else (gray[:, lag:], gray[:, :-lag])
    return cv2.norm(first, second, cv2.NORM_L2SQR) / first.size


def _variance(values: NDArray[Any]) -> float:
    mean = cv2.sumElems(values)[0] / values.size
    return max(0.0, round(cv2.norm(values, cv2.NORM_L2SQR)) / values.size - mean**2)
