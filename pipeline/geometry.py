"""Sizes and regions of pictures, and the meaning of EXIF orientations."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""Height and width in pixels."""

FIRST_TRANSPOSED = 5
"""Orientations from here on exchange height and width."""
FLIPPED_X = frozenset({2, 3, 6, 7})
"""Orientations that are upright once columns are reversed, after the transposition of those from 5 on."""
FLIPPED_Y = frozenset({3, 4, 7, 8})
"""The same for rows."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture in upright pixel coordinates, the end exclusive."""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.y1 - self.y0, self.x1 - self.x0
