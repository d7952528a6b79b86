"""The random crop that everyone takes, and what the OpenCV contestants do with it.

The law is that of torchvision's, Albumentations' and DALI's random resized crop (Szegedy et al., CVPR 2015): area 0.08
to 1, ratio 3/4 to 4/3, drawn evenly in its logarithm; ten tries, then the largest crop in the middle.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .benchmark import SIDE, Output

if TYPE_CHECKING:
    import torch

SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
FLIP_P = 0.5
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_LOG_RATIO = (math.log(RATIO[0]), math.log(RATIO[1]))


def draw_crop(width: int, height: int, chance: random.Random) -> tuple[int, int, int, int]:
    """Draw left, top, width and height."""
    for _ in range(10):
        area = width * height * chance.uniform(*SCALE)
        ratio = math.exp(chance.uniform(*_LOG_RATIO))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return chance.randint(0, width - w), chance.randint(0, height - h), w, h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (width - w) // 2, (height - h) // 2, w, h


def cut_bytes(encoded: np.ndarray, out_hwc: np.ndarray, chance: random.Random) -> None:
    """Decode, crop, resize and flip one picture into ``out_hwc``."""
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB)
    cut(image, out_hwc, chance)


def cut(image_hwc: np.ndarray, out_hwc: np.ndarray, chance: random.Random) -> None:
    """Crop, resize (linear, no antialiasing) and flip one decoded picture into ``out_hwc``."""
    height, width = image_hwc.shape[:2]
    left, top, w, h = draw_crop(width, height, chance)
    cv2.resize(image_hwc[top : top + h, left : left + w], (SIDE, SIDE), dst=out_hwc)
    if chance.random() < FLIP_P:
        cv2.flip(out_hwc, 1, dst=out_hwc)


def load_batch(paths: Sequence[str], output: Output, chance: random.Random) -> torch.Tensor | np.ndarray:
    """Read and finish a batch in the calling thread."""
    images = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    for path, out_hwc in zip(paths, images, strict=True):
        cut_bytes(np.fromfile(path, np.uint8), out_hwc, chance)
    return images if output == "uint8" else normalise(images)


def normalise(images_nhwc: np.ndarray) -> torch.Tensor:
    """Normalise a batch; NCHW over channels-last memory.

    The constants are repeated along a row of pixels, so that torch's loops run over 672 values and not over 3.
    """
    import torch

    scale = torch.tensor([1 / (255 * std) for std in STD]).repeat(SIDE)
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)]).repeat(SIDE)
    rows = torch.from_numpy(images_nhwc).view(-1, SIDE * 3).to(torch.float32).mul_(scale).add_(shift)
    return rows.view(images_nhwc.shape).permute(0, 3, 1, 2)


def endless_order(num_photos: int, seed: int = 0) -> Iterator[int]:
    """Yield shuffled epochs, one after another."""
    generator = np.random.default_rng(seed)
    while True:
        yield from generator.permutation(num_photos).tolist()


def endless_batches(num_photos: int, batch_size: int) -> Iterator[list[int]]:
    """Yield the batches of shuffled epochs, which run on across the ends of epochs."""
    order = endless_order(num_photos)
    while True:
        yield list(islice(order, batch_size))
