"""Places on a map's grid: the regions in which evidence is counted, and their names in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ....explain.measures.regions import BORDER, CORNER
from ....explain.measures.upsampling import box_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


@dataclass(frozen=True)
class Place:
    """A region of the model's input."""

    name: str
    weights: NDArray[np.float32]
    """Fraction of each cell that is inside, (h, w)."""

    @property
    def area(self) -> float:
        """Its fraction of the image."""
        return float(self.weights.mean())


@lru_cache(maxsize=16)
def all_places(height: int, width: int) -> tuple[Place, ...]:
    """Return border, corners, halves of the edges, the cells of a grid of 3 x 3 and the cells of the map.

    Evidence counts by cell, and in part where an edge of the place cuts a cell.
    """
    inner = box_weights(
        (BORDER * width, BORDER * height, (1 - BORDER) * width, (1 - BORDER) * height), (height, width)
    )
    places = [Place("border", (1 - inner).astype(np.float32))]
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        for side, kind in ((CORNER, "corner"), (0.5, "quarter")):
            box = _box(down * (1 - side), across * (1 - side), side, height, width)
            name = f"{('upper', 'lower')[down]} {('left', 'right')[across]} {kind}"
            places.append(Place(name, box))
    places += [
        Place(
            f"{place_name(row / 3 + 1 / 6, column / 3 + 1 / 6)} ninth",
            _box(row / 3, column / 3, 1 / 3, height, width),
        )
        for row in range(3)
        for column in range(3)
    ]
    for cell in range(height * width):
        own = np.zeros(height * width, np.float32)
        own[cell] = 1
        places.append(region_place(own.reshape(height, width)))
    return tuple(places)


def _box(top: float, left: float, side: float, height: int, width: int) -> NDArray[np.float32]:
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    return np.asarray(box_weights(box, (height, width)), np.float32)


def place_name(y: float, x: float) -> str:
    """Name a point, from 0 to 1 in both directions: ``lower left``, ``centre``, ..."""
    row, column = min(int(y * 3), 2), min(int(x * 3), 2)
    if row == 1:
        return "centre" if column == 1 else f"middle {COLUMNS[column]}"
    return f"{ROWS[row]} {COLUMNS[column]}"


def region_place(weights: NDArray[Any]) -> Place:
    """Name a region by its centre of mass and size."""
    percent = max(1, round(100 * float(weights.sum()) / weights.size))
    name = f"region at the {_name_of_centre(weights)} ({percent} % of the image)"
    return Place(name, weights.astype(np.float32))


def _name_of_centre(weights: NDArray[Any]) -> str:
    height, width = weights.shape
    total = float(weights.sum())
    y = float(weights.sum(axis=1) @ (np.arange(height) + 0.5)) / (height * total)
    x = float(weights.sum(axis=0) @ (np.arange(width) + 0.5)) / (width * total)
    return place_name(y, x)


def merge_cells(cells: Sequence[int], height: int, width: int) -> list[NDArray[np.float32]]:
    """Join cells that touch, diagonally too; returns the weights (h, w) of each region."""
    from scipy.ndimage import label

    flat = np.zeros(height * width, np.bool_)
    flat[list(cells)] = True
    numbers, count = label(flat.reshape(height, width), structure=np.ones((3, 3)))
    return [np.asarray(numbers == number, np.float32) for number in range(1, count + 1)]


def joined_place(cells: Sequence[int], height: int, width: int) -> Place:
    """Return cells as one place, named by its parts where they do not touch, or as the frame if they are all around."""
    parts = merge_cells(cells, height, width)
    weights = np.asarray(sum(parts[1:], parts[0]), np.float32)
    if len(parts) == 1 and not _is_around(weights):
        return region_place(weights)
    inner = weights[1:-1, 1:-1]
    percent = max(1, round(100 * float(weights.mean())))
    if not inner.any() and _is_around(weights):
        return Place(f"frame ({percent} % of the image)", weights)
    names = dict.fromkeys(_name_of_centre(part) for part in parts)
    count = "regions" if len(names) == len(parts) else f"{len(parts)} regions"
    return Place(f"{count} at the {' and the '.join(names)} ({percent} % of the image)", weights)


def _is_around(weights: NDArray[np.float32]) -> bool:
    """Return whether cells touch opposite edges."""
    return bool((weights[0].any() and weights[-1].any()) or (weights[:, 0].any() and weights[:, -1].any()))
