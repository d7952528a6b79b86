"""Fixed regions of an image, and the share of a map's evidence in each: border, corners, quadrants, cells of a grid."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .upsampling import Size, box_weights, cell_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BORDER = 0.1
"""Width of the border as a fraction of each side."""
CORNER = 0.25
"""Side of a corner as a fraction of each side: stamps, logos and dates seldom reach further in."""
PLACES = ("top_left", "top_right", "bottom_left", "bottom_right")


@lru_cache(maxsize=16)
def fixed_regions(image_size: Size) -> Mapping[str, NDArray[np.float64]]:
    """Return the pixel weights (H, W) of border, corners and quadrants by column name.

    Border and corners end at whole pixels; quadrants share the middle row and column of odd sizes.
    """
    height, width = image_size
    margin_y, margin_x = round(BORDER * height), round(BORDER * width)
    inner = box_weights((margin_x, margin_y, width - margin_x, height - margin_y), image_size)
    regions = {"border_mass": 1 - inner}
    for name, across, down in (
        ("corner", round(CORNER * width), round(CORNER * height)),
        ("quadrant", width / 2, height / 2),
    ):
        for place in PLACES:
            y0, y1 = (0, down) if place.startswith("top") else (height - down, height)
            x0, x1 = (0, across) if place.endswith("left") else (width - across, width)
            regions[f"{name}_{place}"] = box_weights((x0, y0, x1, y1), image_size)
    return regions


def grid_regions(rows: int, columns: int, image_size: Size) -> NDArray[np.float64]:
    """Return the pixel weights (rows * columns, H, W) of the cells of a grid, in reading order."""
    y, x = np.linspace(0, image_size[0], rows + 1), np.linspace(0, image_size[1], columns + 1)
    return np.stack(
        [
            box_weights((x[column], y[row], x[column + 1], y[row + 1]), image_size)
            for row in range(rows)
            for column in range(columns)
        ]
    )


def uniform_shares(image_size: Size) -> dict[str, float]:
    """Return the share that a uniform map has in each fixed region: its share of the pixels. The baseline of the columns."""
    return {name: float(region.mean()) for name, region in fixed_regions(image_size).items()}


def region_shares(maps: NDArray[Any], regions: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of each map's evidence in each region, exact for the bilinearly upsampled map.

    Args:
        maps: (N, h, w), non-negative.
        regions: pixel weights (R, H, W), the same for all maps.

    Returns:
        (N, R), 0..1; NaN for a map without evidence.
    """
    map_size = int(maps.shape[1]), int(maps.shape[2])
    weights = cell_weights(regions, map_size).reshape(len(regions), -1)
    return _shares(maps, weights, _total_weights(map_size, (regions.shape[1], regions.shape[2])))


def fixed_shares(maps: NDArray[Any], image_size: Size) -> dict[str, NDArray[np.float64]]:
    """Return the share of each map's evidence in border, corners and quadrants: name -> (N,); NaN without evidence."""
    map_size = int(maps.shape[1]), int(maps.shape[2])
    names, weights = _fixed_weights(map_size, image_size)
    shares = _shares(maps, weights, _total_weights(map_size, image_size))
    return dict(zip(names, shares.T, strict=True))


def _shares(
    maps: NDArray[Any], weights: NDArray[np.float64], total: NDArray[np.float64]
) -> NDArray[np.float64]:
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).astype(np.float64)
    mass = flat @ total
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (flat @ weights.T) / mass[:, None]
    shares[~(mass > 0)] = np.nan
    return np.clip(shares, 0, 1)


@lru_cache(maxsize=16)
def _fixed_weights(map_size: Size, image_size: Size) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    regions = fixed_regions(image_size)
    weights = [cell_weights(region, map_size).reshape(-1) for region in regions.values()]
    return tuple(regions), np.stack(weights)


@lru_cache(maxsize=16)
def _total_weights(map_size: Size, image_size: Size) -> NDArray[np.float64]:
    return cell_weights(np.ones(image_size), map_size).reshape(-1)
