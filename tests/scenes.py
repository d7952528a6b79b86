"""Scenes: images with colored rectangles and their boxes, so that annotations can be verified by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"cat": (250, 20, 20), "dog": (20, 250, 20), "fish": (20, 20, 250)}
EXIF_ORIENTATION = 274


@dataclass(frozen=True)
class Scene:
    """An image and the boxes drawn into it: class name, then x0, y0, x1, y1 in the upright image."""

    name: str
    width: int
    height: int
    boxes: tuple[tuple[str, int, int, int, int], ...] = ()
    orientation: int = 1
    """EXIF orientation of the stored image."""

    def pixels(self) -> np.ndarray:
        """Draw the upright image, uint8 HWC."""
        image = np.full((self.height, self.width, 3), 90, np.uint8)
        for name, x0, y0, x1, y1 in self.boxes:
            image[y0:y1, x0:x1] = COLOURS[name]
        return image

    def save(self, folder: Path) -> Path:
        """Write a PNG, or with an orientation a rotated JPEG of high quality."""
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.orientation == 1:
            Image.fromarray(self.pixels()).save(path)
            return path
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = self.orientation
        Image.fromarray(stored(self.pixels(), self.orientation)).save(
            path, quality=98, subsampling=0, exif=exif
        )
        return path


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Return the stored pixels from which an EXIF orientation gives the upright ones."""
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: upright[:, ::-1].swapaxes(0, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: upright[::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(turns[orientation])


def shows(image: np.ndarray, box: Sequence[float], name: str) -> bool:
    """Return whether the pixels of a class's color fill exactly a box, edges included."""
    x0, y0, x1, y1 = (round(float(edge)) for edge in box)
    inside = image[y0:y1, x0:x1].astype(int)
    mask = (np.abs(image.astype(int) - COLOURS[name]).max(axis=2) < 60).sum()
    return (
        inside.size > 0
        and bool(np.abs(inside - COLOURS[name]).max() < 60)
        and int(mask) >= inside.shape[0] * inside.shape[1]
    )
