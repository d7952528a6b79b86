"""Uniform borders on opposite sides of an image, as letterboxes and frames have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_DEVIATION = 10
"""Levels by which pixels of a border may differ from each other and from the outermost ones: compression moves them."""
MIN_CONTENT = 0.5
"""Share of the row behind a border that has to differ from it; less is an object before a plain background."""


def border_measures(working_gray: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure uniform rows and columns at the edges of the gray working copy.

    ``border_vertical``: share of the height in uniform rows of one level at the top and as many at the bottom, twice the smaller
    of both, 0..1; ``border_horizontal``: the same of the columns. ``border_level``: level of the wider pair, None without one. An
    image without any content has no border, nor has a plain background that ends where an object begins.
    """
    vertical, top = _pair(working_gray)
    horizontal, left = _pair(np.ascontiguousarray(working_gray.T))
    level = None if not (vertical or horizontal) else top if vertical >= horizontal else left
    return {"border_vertical": vertical, "border_horizontal": horizontal, "border_level": level}


def _pair(gray: NDArray[Any]) -> tuple[float, float]:
    """Return the share of the rows in equal borders at both ends, and the level of the first row."""
    if any(int(row.max()) - int(row.min()) > MAX_DEVIATION for row in (gray[0], gray[-1])):
        return 0.0, 0.0
    lowest, highest = gray.min(axis=1).astype(np.int64), gray.max(axis=1).astype(np.int64)
    first = _run(gray, lowest, highest)
    last = _run(gray[::-1], lowest[::-1], highest[::-1]) if first else 0
    return 2 * min(first, last) / len(gray), float(lowest[0] + highest[0]) / 2


def _run(gray: NDArray[Any], lowest: NDArray[np.int64], highest: NDArray[np.int64]) -> int:
    """Return the number of leading rows of one level; 0 if most of what follows has the same level."""
    is_uniform = (highest <= lowest[0] + MAX_DEVIATION) & (lowest >= highest[0] - MAX_DEVIATION)
    if is_uniform.all():
        return 0
    num = int(np.argmin(is_uniform))
    behind = gray[num : num + 2].astype(np.int64)  # the first of them may be a mixture
    differs = (behind > lowest[0] + MAX_DEVIATION) | (behind < highest[0] - MAX_DEVIATION)
    return num if num and differs.mean(axis=1).max() >= MIN_CONTENT else 0
