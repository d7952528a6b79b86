"""Image sizes, regions and EXIF orientations."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""Height and width in pixels."""

FIRST_TRANSPOSED = 5
"""EXIF orientations from this one on swap height and width."""
FLIPPED_X = frozenset({2, 3, 6, 7})
"""Orientations that need a horizontal flip, after transposing those from ``FIRST_TRANSPOSED`` on."""
FLIPPED_Y = frozenset({3, 4, 7, 8})
"""Orientations that need a vertical flip, likewise."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle in pixel coordinates of the upright image; ``y1`` and ``x1`` are exclusive."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0
