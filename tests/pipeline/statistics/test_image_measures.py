"""All images, of any size and content, give the same finite measures on every number of threads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.statistics.image_measures import IMAGE_SCHEMA, image_measures

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZES = [
    (1, 1),
    (1, 2),
    (2, 1),
    (1, 300),
    (300, 1),
    (3, 3),
    (7, 130),
    (15, 16),
    (16, 16),
    (65, 64),
    (129, 255),
    (2, 5000),
]
RANGES = {
    **dict.fromkeys(("brightness", "mean_r", "mean_g", "mean_b"), (0, 255)),
    **dict.fromkeys(("contrast", "std_r", "std_g", "std_b"), (0, 128)),
    **dict.fromkeys(("share_dark", "share_light", "saturation", "glcm_homogeneity", "glcm_energy"), (0, 1)),
    **dict.fromkeys(("border_vertical", "border_horizontal"), (0, 1)),
    "border_level": (0, 255),
    **dict.fromkeys(("low_frequency", "mid_frequency", "high_frequency", "spectral_sharpness"), (0, 1)),
    **dict.fromkeys(("white_balance_red", "white_balance_blue"), (-8, 8)),
    **dict.fromkeys(("sharpness", "working_sharpness"), (0, 1020**2)),
    "exposure": (-12, 2.5),
    "entropy": (0, 8),
    "colorfulness": (0, 500),
    "noise": (0, 63.1),
    "least_noise": (0, 63.1),
    "softness": (0.5, 4.1),
    "blockiness": (0, 2551),
    "glcm_contrast": (0, 225),
    "glcm_correlation": (-1, 1),
}


def check(image: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure an image; check that values fit the schema and are finite and in their ranges."""
    measures = image_measures(image)
    row = pa.Table.from_pylist([measures], IMAGE_SCHEMA).to_pylist()[0]
    assert list(measures) == IMAGE_SCHEMA.names
    for name, value in row.items():
        if isinstance(value, float):
            assert math.isfinite(value), name
        if name in RANGES and value is not None:
            low, high = RANGES[name]
            assert low - 1e-4 <= value <= high + 1e-4, (name, value)
    assert sum(row["histogram"]) == pytest.approx(1)
    return measures


@pytest.mark.parametrize("size", SIZES)
def test_images_of_any_size_are_measured(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    for image in (
        noise,
        np.zeros_like(noise),
        np.full_like(noise, 255),
        np.where(noise > 127, 255, 0).astype(np.uint8),
    ):
        check(image)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 140),
    width=st.integers(1, 140),
    seed=st.integers(0, 1000),
    levels=st.integers(1, 256),
    offset=st.integers(0, 255),
)
def test_any_pixels_give_finite_measures_in_range(
    height: int, width: int, seed: int, levels: int, offset: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width, 3)) + offset
    check(np.minimum(pixels, 255).astype(np.uint8))


def test_measures_do_not_depend_on_threads_or_memory_order(scene: NDArray[np.uint8]) -> None:
    before = cv2.getNumThreads()
    try:
        found = []
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            found += [image_measures(scene), image_measures(np.asfortranarray(scene))]
    finally:
        cv2.setNumThreads(before)
    assert all(measures == found[0] for measures in found)


def test_large_images_are_measured_on_parts() -> None:
    tile = np.random.default_rng(2).integers(0, 256, (250, 250, 3), np.uint8)
    large, small = check(np.tile(tile, (8, 8, 1))), check(tile)
    assert large["brightness"] == pytest.approx(small["brightness"], abs=1)
    assert large["sharpness"] == pytest.approx(small["sharpness"], rel=0.05)


def test_constant_images_have_no_spectrum_and_no_defects() -> None:
    found = check(np.full((100, 80, 3), 77, np.uint8))
    assert found["spectral_slope"] is None
    assert (found["sharpness"], found["noise"], found["blockiness"], found["entropy"]) == (0, 0, 1, 0)
    assert found["phash"] == bytes(8)
    assert (found["brightness"], found["contrast"], found["is_gray"]) == (77, 0, True)


def test_one_colored_pixel_makes_an_image_colored() -> None:
    image = np.repeat(np.random.default_rng(3).integers(0, 256, (300, 300, 1), np.uint8), 3, axis=2)
    assert check(image)["is_gray"]
    image[299, 298, 0] ^= 1
    assert not check(image)["is_gray"]
