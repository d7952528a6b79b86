"""Marks that are planted in images: text, a logo, a frame, and defects without a place such as JPEG artefacts.

Sizes are shares of the image's area, so that one mark can be planted in images of any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import cv2
import numpy as np

from ....pipeline.rng import derive_seed, numpy_generator

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["text", "logo", "border", "letterbox", "watermark", "tint", "jpeg", "blur"]
Position = Literal["fixed", "jittered", "random"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LOCAL: tuple[Kind, ...] = ("text", "logo", "border", "letterbox")
"""Kinds whose pixels lie in a part of the image; the others change the whole image."""
MARGIN = 0.04
"""Distance of a mark from the lower left corner, as a share of the image's sides."""
JITTER = 0.06
"""Largest shift of a jittered mark, as a share of the image's sides."""
TEXT = "SAMPLE"
TINT = (60, 20, -40)
"""Added to red, green and blue at opacity 1."""


class Marked(NamedTuple):
    """An image with a mark."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    """Pixels (H, W) that belong to the mark: all of them for a mark without a place."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark, the same in every image but for its position."""

    kind: Kind
    area: float = 0.01
    """Share of the image that the mark covers; ignored by kinds without a place."""
    opacity: float = 1.0
    """0 to 1. For ``jpeg`` and ``blur`` the strength: quality 95 to 5, sigma 0 to 3 % of the shorter side."""
    position: Position = "fixed"
    """``fixed`` in the lower left corner, ``jittered`` around it, or ``random``; ignored by frames."""

    @property
    def has_place(self) -> bool:
        """Whether the mark is at the same place in every image."""
        return self.kind in LOCAL and self.position != "random"

    def plant(self, image: NDArray[np.uint8], seed: int, key: str) -> Marked:
        """Return a copy of an image (H, W, 3), uint8 RGB, with the mark.

        Args:
            image: at least 16 pixels a side.
            seed: of the experiment.
            key: of the image; with the seed it determines the position.
        """
        height, width = image.shape[:2]
        if self.kind in LOCAL:
            colours, alpha = self._drawing(height, width, seed, key)
            mixed = image + (alpha * self.opacity)[..., None] * (colours.astype(np.float32) - image)
            return Marked(np.rint(mixed).astype(np.uint8), alpha > 0)
        return Marked(self._whole(image), np.ones((height, width), np.bool_))

    def _drawing(
        self, height: int, width: int, seed: int, key: str
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the colours (H, W, 3) and the cover (H, W), 0 to 1, of a mark with a place."""
        if self.kind in ("border", "letterbox"):
            return frame(height, width, self.area, bars_only=self.kind == "letterbox")
        stamp, cover = (
            logo(height, width, self.area) if self.kind == "logo" else text(height, width, self.area)
        )
        top, left = self._corner(height, width, stamp.shape[0], stamp.shape[1], seed, key)
        colours, alpha = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32)
        place = np.s_[top : top + stamp.shape[0], left : left + stamp.shape[1]]
        colours[place], alpha[place] = stamp, cover
        return colours, alpha

    def _corner(
        self, height: int, width: int, mark_height: int, mark_width: int, seed: int, key: str
    ) -> tuple[int, int]:
        free = np.array([height - mark_height, width - mark_width])
        usual = np.array([free[0] - round(MARGIN * height), round(MARGIN * width)])
        if self.position == "fixed":
            place = usual
        else:
            generator = numpy_generator(derive_seed("calibration", seed, 0, f"place {key}"))
            if self.position == "random":
                place = generator.integers(0, free + 1)
            else:
                reach = np.array([round(JITTER * height), round(JITTER * width)])
                place = usual + generator.integers(-reach, reach + 1)
        top, left = np.clip(place, 0, free).tolist()
        return top, left

    def _whole(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if self.kind == "tint":
            shifted = image + self.opacity * np.array(TINT, np.float32)
            return np.clip(np.rint(shifted), 0, 255).astype(np.uint8)
        if self.kind == "watermark":
            colours, alpha = tiled_text(height, width)
            mixed = image + (alpha * self.opacity)[..., None] * (colours.astype(np.float32) - image)
            return np.rint(mixed).astype(np.uint8)
        if self.kind == "blur":
            sigma = 0.03 * self.opacity * min(height, width)
            return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0 else image.copy(), np.uint8)
        quality = round(95 - 90 * self.opacity)
        _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
        return np.ascontiguousarray(decoded[..., ::-1])


def frame(
    height: int, width: int, area: float, *, bars_only: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a black frame, or bars above and below only, that cover a share of the image."""
    if bars_only:
        top, left = max(1, round(area * height / 2)), 0
    else:
        # (1 - 2 t) ** 2 = 1 - area for a frame of t times each side
        thickness = (1 - np.sqrt(1 - area)) / 2
        top, left = max(1, round(thickness * height)), max(1, round(thickness * width))
    alpha = np.ones((height, width), np.float32)
    alpha[top : height - top, left : width - left] = 0
    return np.zeros((height, width, 3), np.uint8), alpha


def logo(height: int, width: int, area: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a round two-tone sticker whose disc covers a share of the image."""
    diameter = int(np.clip(round(2 * np.sqrt(area * height * width / np.pi)), 3, min(height, width)))
    y, x = (np.mgrid[:diameter, :diameter] + 0.5) / diameter * 2 - 1
    colours = np.where((x * y > 0)[..., None], (230, 30, 40), (250, 220, 30)).astype(np.uint8)
    return colours, np.asarray(x**2 + y**2 <= 1, np.float32)


def text(height: int, width: int, area: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a word in white on a black plate that covers a share of the image."""
    mark_height = int(np.clip(round(np.sqrt(area * height * width / 4)), 2, height))
    mark_width = int(np.clip(round(area * height * width / mark_height), 2, width))
    plate = cv2.resize(_word(), (mark_width, mark_height), interpolation=cv2.INTER_AREA)
    return np.repeat(plate[..., None], 3, axis=2), np.ones((mark_height, mark_width), np.float32)


def tiled_text(height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return a white word repeated over the whole image, with the cover of its letters."""
    mark_height = max(2, height // 8)
    word = cv2.resize(_word(), (max(2, width // 2), mark_height), interpolation=cv2.INTER_AREA)
    repeated = np.tile(word, (-(-height // mark_height), 3))[:height, :width]
    return np.full((height, width, 3), 255, np.uint8), np.asarray(repeated, np.float32) / np.float32(255)


def _word() -> NDArray[np.uint8]:
    """Return the word in white on black, 4 times as wide as high."""
    plate = np.zeros((64, 256), np.uint8)
    cv2.putText(plate, TEXT, (12, 48), cv2.FONT_HERSHEY_SIMPLEX, 1.85, 255, 4, cv2.LINE_AA)
    return plate
