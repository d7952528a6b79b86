"""Uniform borders on opposite sides of an image, as letterboxes and frames have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DEVIATION = 10
"""Levels by which pixels of a border may differ from each other and from the outermost ones: compression moves them."""


def border_measures(working_gray: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure uniform rows and columns at the edges of the gray working copy.

    ``border_vertical``: share of the height in uniform rows of one level at the top and as many at the bottom, twice the smaller
    of both, 0..1; ``border_horizontal``: the same of the columns. ``border_level``: level of the wider pair, None without one. An
    image without any content has no border.
    """
    found = []
    for axis in (1, 0):
        lowest, highest = (
            np.asarray(cv2.reduce(working_gray, axis, how)).ravel().astype(np.int64)
            for how in (cv2.REDUCE_MIN, cv2.REDUCE_MAX)
        )
        sides = _run(lowest, highest), _run(lowest[::-1], highest[::-1])
        num = len(lowest) if axis else working_gray.shape[1]
        is_empty = sides[0] == num
        found.append((0.0 if is_empty else 2 * min(sides) / num, float(lowest[0] + highest[0]) / 2))
    (vertical, top), (horizontal, left) = found
    level = None if not (vertical or horizontal) else top if vertical >= horizontal else left
    return {"border_vertical": vertical, "border_horizontal": horizontal, "border_level": level}


def _run(lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> int:
    """Return the number of leading rows of one level."""
    is_uniform = (highest <= lowest[0] + MAX_DEVIATION) & (lowest >= highest[0] - MAX_DEVIATION)
    return len(is_uniform) if is_uniform.all() else int(np.argmin(is_uniform))
