"""Filled and pasted regions: only the region changes, and its pixels are as stated."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from lightwell.models.explain.perturb.fill import (
    blur,
    fill_blurred,
    fill_constant,
    impute_linear,
    inpaint_telea,
    paste,
)
from lightwell.models.explain.perturb.regions import control_cells, pixel_mask


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn((3, 2, 14, 18), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def masks() -> torch.Tensor:
    """Different regions, one of them at the edge."""
    masks = torch.zeros(3, 14, 18, dtype=torch.bool)
    masks[0, 4:8, 5:11] = True
    masks[1, :3, :4] = True
    return masks


@pytest.mark.parametrize("fill", [fill_constant, fill_blurred, inpaint_telea, impute_linear])
def test_only_the_region_changes_and_images_do_not_affect_each_other(
    fill: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], images: torch.Tensor, masks: torch.Tensor
) -> None:
    before = images.clone()
    filled = fill(images, masks)
    assert torch.equal(images, before)
    keep = ~masks[:, None].expand_as(images)
    assert torch.equal(filled[keep], images[keep])
    assert not torch.equal(filled[0, :, 4:8, 5:11], images[0, :, 4:8, 5:11])
    for row in range(3):
        torch.testing.assert_close(fill(images[row : row + 1], masks[row]), filled[row : row + 1])


def test_constants_are_zero_or_the_channel_means_of_the_image(
    images: torch.Tensor, masks: torch.Tensor
) -> None:
    assert not fill_constant(images, masks)[0, :, 4:8, 5:11].any()
    own = fill_constant(images, masks, None)
    torch.testing.assert_close(own[0, 1, 5, 6], images[0, 1].mean())
    torch.testing.assert_close(own[1, 0, 0, 0], images[1, 0].mean())


def test_linear_imputation_equals_a_dense_system_of_equations(
    images: torch.Tensor, masks: torch.Tensor
) -> None:
    """Rong et al. 2022: each missing pixel is the weighted mean of its neighbours, missing or not."""
    for row, (channel, mask) in enumerate(
        zip(images[:2, 0].double().numpy(), masks[:2].numpy(), strict=True)
    ):
        matrix, known = np.eye(channel.size), channel.ravel().copy()
        for y, x in zip(*np.nonzero(mask), strict=True):
            around = [
                (y + dy, x + dx, 2.0 if dy * dx == 0 else 1.0)
                for dy, dx in product((-1, 0, 1), repeat=2)
                if (dy, dx) != (0, 0) and 0 <= y + dy < 14 and 0 <= x + dx < 18
            ]
            total = sum(weight for *_, weight in around)
            known[y * 18 + x] = 0
            for j, i, weight in around:
                matrix[y * 18 + x, j * 18 + i] = -weight / total
        expected = np.linalg.solve(matrix, known).reshape(14, 18)
        np.testing.assert_allclose(impute_linear(images, masks)[row, 0].numpy(), expected, atol=1e-6)


def test_imputation_continues_a_plane_exactly_and_a_fully_masked_image_becomes_zero() -> None:
    ramp = torch.arange(12.0)[None, None, :, None] + 2 * torch.arange(10.0)
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[3:7, 2:8] = True
    torch.testing.assert_close(impute_linear(ramp, mask), ramp)
    assert not impute_linear(ramp, torch.ones_like(mask)).any()


def test_blur_equals_opencv(images: torch.Tensor) -> None:
    expected = cv2.GaussianBlur(images[0, 1].numpy(), (7, 7), 1.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(blur(images, 1.0)[0, 1].numpy(), expected, atol=1e-5)


def test_pixels_are_pasted_at_their_place(images: torch.Tensor, masks: torch.Tensor) -> None:
    pasted = paste(images, images[2:], masks)
    assert torch.equal(pasted[0, :, 4:8, 5:11], images[2, :, 4:8, 5:11])
    assert torch.equal(pasted[0, :, :4], images[0, :, :4])


def test_cells_cover_the_pixels_with_their_centres() -> None:
    cells = np.array([[0.2, 0.5, 0.9], [0, 0, 0.4]])
    expected = np.zeros((5, 7), np.bool_)
    expected[:2, 2:] = True
    expected[2, 2:] = False  # its centre is on the edge of the second row
    assert (pixel_mask(cells, (5, 7)) == expected).all()
    assert pixel_mask(np.array([[0.25, 0], [0, 0]]), (4, 4)).sum() == 4, "weights of a coarse grid are small"
    assert not pixel_mask(np.zeros((2, 2)), (4, 4)).any()


def test_control_regions_have_equal_area_and_avoid_region_and_evidence() -> None:
    """The only free 2 x 2 place of a 4 x 4 grid is found; places are seeded; a region without room overlaps itself."""
    region = np.zeros((4, 4))
    region[:2, :2] = 1
    evidence = np.zeros((4, 4))
    evidence[2, 0] = evidence[3, 1] = evidence[0, 3] = 1.0
    control, overlap = control_cells(region, evidence, np.random.default_rng(0))
    assert overlap == 0
    assert control[2:, 2:].all()
    assert control.sum() == 4
    places = {control_cells(region, None, np.random.default_rng(seed))[0].tobytes() for seed in range(20)}
    again = control_cells(region, None, np.random.default_rng(3))[0]
    assert len(places) > 1
    assert (again == control_cells(region, None, np.random.default_rng(3))[0]).all()
    wide = np.ones((4, 4))
    wide[0, 0] = 0
    assert control_cells(wide, None, np.random.default_rng(0))[1] == pytest.approx(14 / 15)
