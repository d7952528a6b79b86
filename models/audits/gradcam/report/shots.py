"""Pictures of the report: each stored once, and drawn with maps, boxes and regions over it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..gallery import Picture
from ..pictures import THUMBNAIL, thumbnail

if TYPE_CHECKING:
    from ...findings.finding import Region

MAX_PIXELS = 20_000_000
"""Pixels of all pictures together, which bounds the size of the page: about 0.4 bytes each as base64 of a JPEG."""
MIN_SIDE = 160
INSIDE = 0.5
"""Weight from which on a cell of a region is drawn as inside."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A model input on the page, referred to by its number."""

    number: int
    uri: str
    width: int
    """Of the model input in pixels, the unit of everything drawn over it."""
    height: int
    boxes: tuple[tuple[float, float, float, float], ...]
    """Left, top, width and height of the annotated boxes."""


def number_photos(pictures: Mapping[str, Picture]) -> dict[str, Photo]:
    """Encode pictures by key, the smaller the more there are."""
    side = max(MIN_SIDE, min(THUMBNAIL, int(math.sqrt(MAX_PIXELS / max(1, len(pictures))))))
    return {
        key: Photo(
            number,
            thumbnail(picture.pixels, side),
            picture.pixels.shape[1],
            picture.pixels.shape[0],
            _boxes(picture),
        )
        for number, (key, picture) in enumerate(sorted(pictures.items()))
    }


def _boxes(picture: Picture) -> tuple[tuple[float, float, float, float], ...]:
    if picture.boxes is None:
        return ()
    height, width = picture.pixels.shape[:2]
    corners = picture.boxes[:, :4].clip((0, 0, 0, 0), (width, height, width, height)).tolist()
    return tuple((x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in corners)


def outline(region: Region, width: int, height: int) -> str:
    """Return the outline of a region's cells as an SVG path over a picture of this size."""
    inside = region.weights >= INSIDE
    across, down = width / region.width, height / region.height
    parts = []
    for row in range(region.height):
        for column in range(region.width):
            if not inside[row, column]:
                continue
            left, top = column * across, row * down
            if row == 0 or not inside[row - 1, column]:
                parts.append(f"M{left:.1f} {top:.1f}h{across:.1f}")
            if row == region.height - 1 or not inside[row + 1, column]:
                parts.append(f"M{left:.1f} {top + down:.1f}h{across:.1f}")
            if column == 0 or not inside[row, column - 1]:
                parts.append(f"M{left:.1f} {top:.1f}v{down:.1f}")
            if column == region.width - 1 or not inside[row, column + 1]:
                parts.append(f"M{left + across:.1f} {top:.1f}v{down:.1f}")
    return "".join(parts)
