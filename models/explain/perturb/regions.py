"""Regions of images: cells of a small grid as pixels, and control regions of equal area elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSIDE = 0.5
"""A cell is inside a region from this fraction of the region's largest weight on."""
EVIDENCE_COST = 0.5
"""Cost of a control cell on the image's strongest evidence, beside 1 for a cell of the region itself."""
TOP_EVIDENCE = 0.2
"""Fraction of the cells with the strongest evidence, which control regions avoid."""


def inside_cells(weights: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the cells inside a region by their weights (h, w), 0..1."""
    return np.asarray((weights >= INSIDE * weights.max(initial=0)) & (weights > 0))


def pixel_mask(cells: NDArray[Any], image_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of the cells (h, w) that are inside; each pixel belongs to the cell that holds its centre."""
    rows = (np.arange(image_size[0]) + 0.5) * cells.shape[0] / image_size[0]
    columns = (np.arange(image_size[1]) + 0.5) * cells.shape[1] / image_size[1]
    inside = inside_cells(cells)
    return np.asarray(inside[np.ix_(rows.astype(np.int64), columns.astype(np.int64))])


def control_cells(
    cells: NDArray[Any], evidence: NDArray[Any] | None, generator: np.random.Generator
) -> tuple[NDArray[np.bool_], float]:
    """Shift a region to a place that overlaps least with itself and with an image's strongest evidence.

    The shift wraps around the edges, so that the area is the same. Among equally good places the generator chooses.

    Args:
        cells: weights of the region (h, w); see `inside_cells`.
        evidence: map of the image (h, w), rectified; None to avoid the region only.
        generator: seeded for the region and the image.

    Returns:
        The control region (h, w), and the fraction of its cells that are also in the region.
    """
    region = inside_cells(cells)
    strongest = np.zeros(region.shape, np.bool_)
    if evidence is not None and evidence.shape == region.shape and evidence.max() > 0:
        num = max(1, round(TOP_EVIDENCE * evidence.size))
        strongest.ravel()[np.argsort(-evidence, axis=None, kind="stable")[:num]] = True
        strongest &= evidence > 0
    shifts = [(down, right) for down in range(region.shape[0]) for right in range(region.shape[1])]
    moved = np.stack([np.roll(region, shift, axis=(0, 1)) for shift in shifts])
    cost = (moved & region).sum(axis=(1, 2)) + EVIDENCE_COST * (moved & strongest).sum(axis=(1, 2))
    best = np.flatnonzero(cost == cost.min())
    control = moved[best[generator.integers(len(best))]]
    return control, float((control & region).sum() / max(1, region.sum()))
