"""Points of an image, moved through the recorded steps of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .....pipeline.geometry import Size
    from .....pipeline.transform.params import TransformCall

SIDE = 32
"""Rows and columns of points on an image."""
_X, _Y, _POINT, _INSIDE = 0, 1, 5, 6
"""Columns of Albumentations' keypoints (x, y, z, angle, scale), then the number of the point and whether no step lost it."""
_MARGIN = 1.0
"""Pixels by which a point may lie outside: Albumentations flips numbers of pixels and scales positions."""


@dataclass(frozen=True)
class TracedPoints:
    """Points after all steps."""

    places: NDArray[np.float64]
    """x and y in the output (N, 2); NaN for points that a step removed."""
    lost_by: NDArray[np.int64]
    """Number of the call that moved the point out of the frame; -1 for points in the output."""

    @property
    def is_kept(self) -> NDArray[np.bool_]:
        """Points that no step moved out of the frame."""
        return self.lost_by < 0

    def part(self, start: int, end: int) -> TracedPoints:
        """Return some of the points."""
        return TracedPoints(self.places[start:end], self.lost_by[start:end])


def lattice(width: float, height: float, side: int = SIDE) -> NDArray[np.float64]:
    """Return the centers of equal cells of a rectangle at the origin, row by row, as x and y (side * side, 2)."""
    steps = (np.arange(side) + 0.5) / side
    return np.stack(
        [np.tile(steps * width, side), np.repeat(steps * height, side)],
        axis=1,
    )


def trace_points(
    leaves: Sequence[Any], calls: Sequence[TransformCall], points: NDArray[np.float64], size: Size
) -> TracedPoints:
    """Move points as Albumentations moves keypoints.

    A point that leaves the frame is lost, also where a later step would move it back.

    Args:
        leaves: the transforms of the policy, by the numbers of the calls.
        calls: the recorded steps.
        points: x and y in the original (N, 2).
        size: height and width of the output.
    """
    import albumentations

    num = len(points)
    rows = np.zeros((num, 7), np.float32)
    rows[:, :2], rows[:, _POINT], rows[:, _INSIDE] = points - 0.5, np.arange(num), 1.0
    lost_by = np.full(num, -1, np.int64)
    sizes = [*(call.size for call in calls), size][1:]
    for number, (call, after) in enumerate(zip(calls, sizes, strict=True)):
        leaf = leaves[call.transform_index]
        if not isinstance(leaf, albumentations.DualTransform) or not len(rows):
            continue
        rows = np.asarray(leaf.apply_to_keypoints(rows, **call.params), np.float32)
        limits = np.array(after[::-1], np.float32)
        inside = ((rows[:, :2] >= -_MARGIN) & (rows[:, :2] <= limits - 1 + _MARGIN)).all(axis=1)
        rows[:, _INSIDE] *= inside
        kept = rows[:, _INSIDE] > 0
        rows[kept, :2] = np.clip(rows[kept, :2], -0.5, limits - 0.5)
        present = np.zeros(num, np.bool_)
        present[rows[kept, _POINT].astype(np.int64)] = True
        lost_by[~present & (lost_by < 0)] = number
    places = np.full((num, 2), np.nan)
    # Reflecting borders make copies, of which the first counts.
    numbers, first = np.unique(rows[:, _POINT].astype(np.int64), return_index=True)
    places[numbers] = rows[first, :2] + 0.5
    return TracedPoints(places, lost_by)


def enlargement(traced: TracedPoints, spacing: tuple[float, float], side: int = SIDE) -> float | None:
    """Return the output's pixels per pixel of the original, along one side: the median over cells of a `lattice`.

    Args:
        traced: the points of the lattice.
        spacing: distance of its points in x and y, in pixels of the original.
        side: of the lattice.

    Returns:
        The root of the ratio of areas; None where no cell is left.
    """
    grid = traced.places.reshape(side, side, 2)
    kept = traced.is_kept.reshape(side, side)
    right, down = grid[:-1, 1:] - grid[:-1, :-1], grid[1:, :-1] - grid[:-1, :-1]
    areas = np.abs(right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]) / (spacing[0] * spacing[1])
    known = np.isfinite(areas)
    whole = known & kept[:-1, 1:] & kept[:-1, :-1] & kept[1:, :-1]
    chosen = areas[whole if whole.any() else known]
    return float(np.sqrt(np.median(chosen))) if len(chosen) else None
