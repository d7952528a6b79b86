"""Images that every measure is taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def make_scene(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Make an image of gradients, ellipses, fine texture and a little noise."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width] / max(height, width)
    planes = [90 + 60 * down + 30 * across, 120 + 80 * across * down, 60 + 100 * np.abs(down - across)]
    image = np.stack(planes, axis=-1).astype(np.uint8)
    for _ in range(12):
        center = (int(generator.integers(width)), int(generator.integers(height)))
        axes = tuple(int(value) for value in generator.integers(2, max(3, min(height, width) // 3), 2))
        color = [int(value) for value in generator.integers(0, 256, 3)]
        cv2.ellipse(image, center, axes, float(generator.uniform(0, 180)), 0, 360, color, -1)
    noise = generator.normal(0, 4, image.shape) + 10 * np.sin(np.arange(width) * 1.7)[None, :, None]
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def scene() -> NDArray[np.uint8]:
    """Return a scene larger than the tiles together, with sides that are no multiples of anything."""
    return make_scene(213, 301)


@pytest.fixture(scope="session")
def small_scene() -> NDArray[np.uint8]:
    """Return a scene that is one tile and is not shrunk."""
    return make_scene(48, 64)
