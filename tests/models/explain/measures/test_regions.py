"""Shares of fixed regions: exact for the upsampled map, and what symmetry asks of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.explain.measures.regions import (
    BORDER,
    CORNER,
    PLACES,
    fixed_shares,
    grid_regions,
    region_shares,
    uniform_shares,
)
from lightwell.models.explain.measures.upsampling import axis_matrix, cell_weights

SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))
IMAGE_SIZES = st.tuples(st.integers(8, 70), st.integers(8, 70))


def some_maps(map_size: tuple[int, int], seed: int, num: int = 3) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).normal(size=(num, *map_size)), 0)


def upsampled(maps: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    tensor = torch.from_numpy(maps)[:, None].double()
    resized = torch.nn.functional.interpolate(tensor, size=image_size, mode="bilinear", align_corners=False)
    return resized[:, 0].numpy()


def slow_share(pixels: np.ndarray, inside: Any) -> float:
    """Sum pixel by pixel."""
    total = share = 0.0
    for y in range(pixels.shape[0]):
        for x in range(pixels.shape[1]):
            total += pixels[y, x]
            share += pixels[y, x] * inside(y, x)
    return share / total


@pytest.mark.parametrize(
    ("map_size", "image_size"), [((7, 7), (32, 32)), ((3, 5), (31, 46)), ((9, 4), (8, 6))]
)
def test_shares_equal_sums_over_the_upsampled_map(
    map_size: tuple[int, int], image_size: tuple[int, int]
) -> None:
    """Against torch's resizing and plain loops over pixels."""
    height, width = image_size
    map_ = some_maps(map_size, 0, 1)
    pixels = upsampled(map_, image_size)[0]
    shares = {name: float(values[0]) for name, values in fixed_shares(map_, image_size).items()}
    margin_y, margin_x = round(BORDER * height), round(BORDER * width)
    corner_y, corner_x = round(CORNER * height), round(CORNER * width)

    def in_border(y: int, x: int) -> bool:
        return not (margin_y <= y < height - margin_y and margin_x <= x < width - margin_x)

    def half(position: int, size: int) -> float:
        """Share of a pixel in the first half of an axis."""
        return 0.5 if 2 * position + 1 == size else float(2 * position < size)

    assert shares["border_mass"] == pytest.approx(slow_share(pixels, in_border), abs=1e-12)
    top_right = slow_share(pixels, lambda y, x: y < corner_y and x >= width - corner_x)
    assert shares["corner_top_right"] == pytest.approx(top_right, abs=1e-12)
    bottom_left = slow_share(pixels, lambda y, x: (1 - half(y, height)) * half(x, width))
    assert shares["quadrant_bottom_left"] == pytest.approx(bottom_left, abs=1e-12)


@given(map_size=SIZES, image_size=IMAGE_SIZES, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_quadrants_and_grids_sum_to_one_and_flips_move_shares(
    map_size: tuple[int, int], image_size: tuple[int, int], seed: int
) -> None:
    maps = some_maps(map_size, seed) + 1e-3
    shares = fixed_shares(maps, image_size)
    mirrored, turned = fixed_shares(maps[:, :, ::-1], image_size), fixed_shares(maps[:, ::-1], image_size)
    assert all(((each >= 0) & (each <= 1)).all() for each in shares.values())
    np.testing.assert_allclose(sum(shares[f"quadrant_{place}"] for place in PLACES), 1, atol=1e-9)
    np.testing.assert_allclose(region_shares(maps, grid_regions(3, 2, image_size)).sum(axis=1), 1, atol=1e-9)
    for kind in ("corner", "quadrant"):
        for row in ("top", "bottom"):
            np.testing.assert_allclose(
                mirrored[f"{kind}_{row}_left"], shares[f"{kind}_{row}_right"], atol=1e-9
            )
        np.testing.assert_allclose(turned[f"{kind}_top_left"], shares[f"{kind}_bottom_left"], atol=1e-9)
    np.testing.assert_allclose(mirrored["border_mass"], shares["border_mass"], atol=1e-9)


@given(map_size=SIZES, image_size=IMAGE_SIZES)
@settings(max_examples=30, deadline=None)
def test_a_uniform_map_has_the_baseline(map_size: tuple[int, int], image_size: tuple[int, int]) -> None:
    shares = fixed_shares(np.full((1, *map_size), 0.3), image_size)
    for name, baseline in uniform_shares(image_size).items():
        assert shares[name][0] == pytest.approx(baseline, abs=1e-12)


def test_a_map_without_evidence_has_no_shares() -> None:
    assert all(np.isnan(each).all() for each in fixed_shares(np.zeros((2, 3, 3)), (9, 9)).values())


@given(cells=st.integers(1, 40), pixels=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_matrix_of_an_axis_equals_torch(cells: int, pixels: int) -> None:
    basis = torch.eye(cells, dtype=torch.float64)[None]
    expected = torch.nn.functional.interpolate(basis, size=pixels, mode="linear", align_corners=False)[0]
    np.testing.assert_allclose(axis_matrix(cells, pixels), expected.numpy().T, atol=1e-12)


def test_weights_of_cells_sum_a_mask_over_the_upsampled_map() -> None:
    maps = some_maps((4, 6), 1)
    masks = np.random.default_rng(2).random((3, 20, 27)) > 0.5
    expected = (upsampled(maps, (20, 27)) * masks).sum(axis=(1, 2))
    np.testing.assert_allclose((maps * cell_weights(masks, (4, 6))).sum(axis=(1, 2)), expected, atol=1e-10)
