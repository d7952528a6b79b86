"""Maps drawn on the original picture instead of on the model's input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ...pipeline.compiler.program import Program
from ...pipeline.compiler.view_geometry import view_geometry
from ...pipeline.warning_filter import ignored_warnings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...pipeline.geometry import Size

MAX_SIDE = 1024
"""Longest side of an overlay in pixels; larger pictures are reduced to it."""
UNSEEN = 0.45
"""Brightness of what the model did not see, relative to the picture."""
MAX_OPACITY = 0.78
COLOURS = "inferno"
"""Perceptually uniform colour map; dark means no evidence and is drawn transparent."""


@dataclass(frozen=True, slots=True)
class PhotoMap:
    """A picture and a map at its size."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    evidence: NDArray[np.float32]
    """(H, W), signed, in the units of the map; NaN where the model saw nothing."""
    is_photo: bool
    """The picture is the original; False where the plan's geometry cannot be inverted, and it is the model's input."""

    def overlay(self) -> NDArray[np.uint8]:
        """Draw the evidence for the class, relative to its largest value, over the picture; the unseen part is dimmed."""
        return draw_evidence(self.pixels, self.evidence)


def draw_on_photo(program: Program, photo: NDArray[np.uint8], small: NDArray[np.float32]) -> PhotoMap:
    """Bring a map of the model's input back to the original picture, and both to at most ``MAX_SIDE``.

    Args:
        program: the plan whose evaluation made the model's input.
        photo: the upright picture, (H, W, 3).
        small: the map, (h, w), over the whole input of the model.
    """
    size: Size = (int(photo.shape[0]), int(photo.shape[1]))
    found = view_geometry(program, size)
    if found is None:
        with ignored_warnings():
            photo = np.ascontiguousarray(program.compose(augment=False)(image=photo)["image"])
        size = (int(photo.shape[0]), int(photo.shape[1]))
    matrix, view = (np.eye(2, 3), size) if found is None else found
    scale = min(1.0, MAX_SIDE / max(size))
    shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    pixels = photo if scale == 1 else cv2.resize(photo, shown[::-1], interpolation=cv2.INTER_AREA)
    evidence = warp_map(small, matrix, view, size, shown)
    return PhotoMap(np.asarray(pixels, np.uint8), evidence, found is not None)


def warp_map(
    small: NDArray[np.float32], matrix: NDArray[np.float64], view: Size, size: Size, shown: Size
) -> NDArray[np.float32]:
    """Resample a map to a picture; NaN outside of the model's input.

    Args:
        small: (h, w), over a view.
        matrix: (2, 3), from x, y of the picture to x, y of the view.
        view: height and width of the view.
        size: height and width of the picture.
        shown: height and width of the result, which shows the whole picture.
    """
    large = cv2.resize(small, view[::-1], interpolation=cv2.INTER_LINEAR)
    # Centres of pixels are at half integers: of the result, of the picture and of the view.
    from_shown = np.array([[size[1] / shown[1], 0, 0], [0, size[0] / shown[0], 0], [0, 0, 1]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    full = np.vstack([matrix, [0, 0, 1]])
    backward = (np.linalg.inv(half) @ full @ from_shown @ half)[:2]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(large, backward, shown[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    rows, columns = np.mgrid[: shown[0], : shown[1]]
    x, y = (backward[axis, 0] * columns + backward[axis, 1] * rows + backward[axis, 2] for axis in (0, 1))
    inside = (x >= -1) & (y >= -1) & (x <= view[1]) & (y <= view[0])
    return np.asarray(np.where(inside, warped, np.nan), np.float32)


def draw_evidence(pixels: NDArray[np.uint8], evidence: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw positive evidence over a picture, with opacity increasing with its share of the largest value.

    Args:
        pixels: (H, W, 3).
        evidence: (H, W), signed; NaN is dimmed.
    """
    from matplotlib import colormaps

    positive = np.maximum(np.nan_to_num(evidence), 0)
    heat = positive / (positive.max() or 1)
    seen = np.where(np.isnan(evidence), UNSEEN, 1.0)[..., None] * pixels
    opacity = MAX_OPACITY * heat[..., None] ** 0.8
    colours = colormaps[COLOURS](0.12 + 0.88 * heat)[..., :3] * 255
    return np.asarray((1 - opacity) * seen + opacity * colours + 0.5).astype(np.uint8)
