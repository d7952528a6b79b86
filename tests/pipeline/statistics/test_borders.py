"""Borders of opposite sides are measured as shares of the sides; content at one edge, and images without content, have none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from lightwell.pipeline.statistics.borders import border_measures
from lightwell.pipeline.statistics.image_measures import image_measures

if TYPE_CHECKING:
    from numpy.typing import NDArray


def textured(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(40, 216, (height, width), np.uint8)


def test_a_letterbox_and_a_pillarbox_are_shares_of_their_sides_with_their_level() -> None:
    letterbox = np.pad(textured(60, 100), ((10, 30), (0, 0)), constant_values=7)
    assert border_measures(letterbox) == {
        "border_vertical": 0.2,
        "border_horizontal": 0.0,
        "border_level": 7.0,
    }
    pillarbox = np.pad(textured(60, 60), ((0, 0), (20, 20)), constant_values=255)
    assert border_measures(pillarbox) == {
        "border_vertical": 0.0,
        "border_horizontal": 0.4,
        "border_level": 255.0,
    }


def test_one_side_and_an_empty_image_have_no_border_and_compression_hides_none() -> None:
    one_side = np.pad(textured(60, 100), ((0, 40), (0, 0)))
    nothing = {"border_vertical": 0.0, "border_horizontal": 0.0, "border_level": None}
    assert border_measures(one_side) == nothing
    assert border_measures(np.full((50, 50), 9, np.uint8)) == nothing
    assert border_measures(np.zeros((1, 1), np.uint8)) == nothing
    noisy = np.pad(textured(60, 100), ((20, 20), (0, 0))).astype(np.int64)
    noisy += np.random.default_rng(0).integers(0, 9, noisy.shape)
    assert border_measures(noisy.clip(0, 255).astype(np.uint8))["border_vertical"] == 0.4


@pytest.mark.parametrize("size", [(240, 320), (1000, 700)])
def test_borders_of_larger_images_are_measured_on_the_working_copy(size: tuple[int, int]) -> None:
    image = np.stack([textured(*size)] * 3, axis=2)
    framed = np.pad(image, ((size[0] // 8, size[0] // 8), (0, 0), (0, 0)))
    assert image_measures(framed)["border_vertical"] == pytest.approx(0.2, abs=0.03)
    assert image_measures(image)["border_vertical"] == 0


def test_an_object_before_a_plain_background_has_no_border_and_a_frame_has() -> None:
    scene = np.full((100, 100), 230, np.uint8)
    scene[30:70, 40:60] = textured(40, 20)
    assert border_measures(scene)["border_vertical"] == 0
    frame = np.pad(textured(80, 80), 10, constant_values=230)
    assert border_measures(frame) == {"border_vertical": 0.2, "border_horizontal": 0.2, "border_level": 230.0}
