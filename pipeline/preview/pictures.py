"""Finished pictures as people see them: small, in bytes, with their annotations as marks on top."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from colorsys import hls_to_rgb
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from PIL import Image

from ..batch.annotations import NO_ANNOTATIONS, NOT_VISIBLE, Annotations
from ..formats.mask_headers import IGNORED
from ..geometry import Size

THUMBNAIL = 320
"""Longest side of a picture on the page, in pixels."""
SMALL = 96
"""Pictures up to here are shown with their pixels as squares, and lossless."""
MOST_MARKS = 100
"""Boxes, and keypoints, that are drawn on one picture."""
GOLDEN = 0.618034
"""Part of the circle of hues between colours that follow each other."""
MASK_OPACITY = 140
QUALITY = 85


@dataclass(frozen=True, slots=True)
class Box:
    """A box on a picture, in percent of it."""

    left: float
    top: float
    width: float
    height: float
    name: str
    colour: int


@dataclass(frozen=True, slots=True)
class Point:
    """A keypoint on a picture, in percent of it."""

    left: float
    top: float
    name: str
    colour: int
    occluded: bool


@dataclass(frozen=True, slots=True)
class Names:
    """Names of classes and the kinds of annotations of an index."""

    classes: tuple[str, ...] = ()
    box_classes: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()

    def of_class(self, number: int) -> str:
        """Name a class; its number where it has no name."""
        return _name(number, self.classes) or "no label"


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """One picture of the page."""

    pixels: np.ndarray
    """uint8 RGB, at most ``THUMBNAIL`` a side: the finished pixels themselves where these are no larger."""
    size: Size
    """Height and width of the finished picture."""
    mask: np.ndarray | None = None
    """Label numbers, as large as ``pixels``."""
    boxes: tuple[Box, ...] = ()
    points: tuple[Point, ...] = ()
    num_unmarked: int = 0
    """Boxes and keypoints that are not drawn, since there are too many."""
    shape: tuple[int, ...] = ()
    """Of the finished pixels, channels included."""
    stretched: bool = False
    """Its floats were scaled to be seen."""

    @property
    def uri(self) -> str:
        """Return the picture as a data URI."""
        image = Image.fromarray(self.pixels)
        return _data_uri(image, "PNG" if max(self.size) <= SMALL else "JPEG")

    @property
    def mask_uri(self) -> str:
        """Return the mask as a data URI to lie over the picture; empty without one."""
        return "" if self.mask is None else _data_uri(Image.fromarray(mask_colours(self.mask)), "PNG")

    @property
    def labels(self) -> tuple[int, ...]:
        """Label numbers of the mask."""
        return () if self.mask is None else tuple(np.unique(self.mask).tolist())

    @property
    def is_small(self) -> bool:
        """Whether its pixels are shown as squares."""
        return max(self.size) <= SMALL


def picture_of(image: Any, annotations: Annotations = NO_ANNOTATIONS, names: Names | None = None) -> Picture:
    """Make a picture of finished pixels.

    Args:
        image: HWC or HW, of any type, on any device.
        annotations: of the finished picture.
        names: of classes of boxes and of keypoints.
    """
    pixels = image if isinstance(image, np.ndarray) else image.cpu().numpy()
    seen, stretched = visible_pixels(pixels)
    height, width = seen.shape[:2]
    names = names or Names()
    boxes = _boxes(annotations, (height, width), names.box_classes)
    points = _points(annotations, (height, width), names.keypoints)
    small = _shrunk(seen, Image.Resampling.LANCZOS)
    mask = annotations.mask
    if mask is not None and small.shape[:2] != mask.shape[:2]:
        resized = Image.fromarray(mask).resize(small.shape[1::-1], Image.Resampling.NEAREST)
        mask = np.asarray(resized)
    return Picture(
        small.copy(),
        (height, width),
        None if mask is None else mask.copy(),
        tuple(boxes[:MOST_MARKS]),
        tuple(points[:MOST_MARKS]),
        max(0, len(boxes) - MOST_MARKS) + max(0, len(points) - MOST_MARKS),
        tuple(pixels.shape),
        stretched,
    )


def visible_pixels(image: np.ndarray) -> tuple[np.ndarray, bool]:
    """Return pixels as uint8 RGB, and whether they had to be stretched from their least to their greatest value."""
    if image.ndim == 2:
        image = image[:, :, None]
    image = image[:, :, :3] if image.shape[2] >= 3 else np.repeat(image[:, :, :1], 3, axis=2)
    if image.dtype == np.uint8:
        return image, False
    values = image.astype(np.float32)
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    stretched = not (low >= 0 and high <= 1)
    if stretched:
        values = (values - low) / max(high - low, float(np.finfo(np.float32).tiny))
    return np.asarray(np.clip(np.nan_to_num(values) * 255 + 0.5, 0, 255)).astype(np.uint8), stretched


def colour_of(number: int) -> tuple[int, int, int]:
    """Return the colour of a label, a class of boxes or a keypoint; near numbers differ."""
    if 0 <= number < len(COLOURS):
        return COLOURS[number]
    hue, light = number * GOLDEN % 1, (0.45, 0.6, 0.75)[number % 3]
    red, green, blue = hls_to_rgb(hue, light, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


COLOURS: Sequence[tuple[int, int, int]] = (
    (34, 211, 238),
    (250, 204, 21),
    (244, 63, 94),
    (74, 222, 128),
    (192, 132, 252),
    (251, 146, 60),
    (96, 165, 250),
    (236, 72, 153),
    (163, 230, 53),
    (45, 212, 191),
    (248, 113, 113),
    (129, 140, 248),
)


def mask_colours(mask: np.ndarray) -> np.ndarray:
    """Colour a mask; label 0 is transparent, pixels without annotation are gray."""
    table = np.array([(*colour_of(number - 1), MASK_OPACITY) for number in range(256)], np.uint8)
    table[0] = 0
    table[IGNORED] = (128, 128, 128, 190)
    return np.asarray(table[mask])


def _boxes(annotations: Annotations, size: Size, names: Sequence[str]) -> list[Box]:
    if annotations.boxes is None:
        return []
    labels = annotations.box_labels
    numbers = [-1] * len(annotations.boxes) if labels is None else labels.tolist()
    height, width = size
    corners = np.clip(annotations.boxes * (np.array([100 / width, 100 / height] * 2)), 0, 100).tolist()
    return [
        Box(x0, y0, x1 - x0, y1 - y0, _name(number, names), max(number, 0))
        for (x0, y0, x1, y1), number in zip(corners, numbers, strict=True)
    ]


def _points(annotations: Annotations, size: Size, names: Sequence[str]) -> list[Point]:
    if annotations.keypoints is None:
        return []
    return [
        Point(100 * x / size[1], 100 * y / size[0], _name(number, names), number, seen < 2)
        for instance in annotations.keypoints.tolist()
        for number, (x, y, seen) in enumerate(instance)
        if seen > NOT_VISIBLE
    ]


def _name(number: int, names: Sequence[str]) -> str:
    if number < 0:
        return ""
    return names[number] if number < len(names) else str(number)


def _shrunk(image: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
    longest = max(image.shape[:2])
    if longest <= THUMBNAIL:
        return image
    height, width = (max(1, round(side * THUMBNAIL / longest)) for side in image.shape[:2])
    gap = 3.0 if prod(image.shape[:2]) > THUMBNAIL**2 * 16 else None
    found = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), resampling, reducing_gap=gap)
    return np.asarray(found)


def _data_uri(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, kind, quality=QUALITY)
    else:
        image.save(buffer, kind, optimize=True)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
