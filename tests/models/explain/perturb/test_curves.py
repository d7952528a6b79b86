"""Deletion and insertion curves against plain loops, on a model that sums the brightness of a corner."""

from __future__ import annotations

import numpy as np
import torch
from lightwell.models.explain.perturb.curves import (
    area_under,
    deletion_curve,
    deletion_ranks,
    insertion_curve,
    random_maps,
)


def corner_share(images: torch.Tensor) -> torch.Tensor:
    """The mean of the upper left quarter, as probability of class 1."""
    share = images[:, 0, :4, :4].mean(dim=(1, 2))
    return torch.stack((1 - share, share), dim=1)


def test_curves_equal_plain_loops_over_pixels() -> None:
    images = torch.rand((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    maps = np.random.default_rng(1).random((2, 3, 3))
    classes = torch.tensor([1, 0])
    ranks = deletion_ranks(maps, (8, 8))
    deleted = deletion_curve(corner_share, images, classes, ranks, steps=4)
    upsampled = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], size=(8, 8), mode="bilinear")
    for row in range(2):
        strongest_first = torch.argsort(-upsampled[row].flatten(), stable=True)
        changed = images[row : row + 1].clone()
        for step in range(5):
            for pixel in strongest_first[(step - 1) * 16 : step * 16] if step else []:
                changed[0, 0, pixel // 8, pixel % 8] = 0
            expected = corner_share(changed)[0, classes[row]]
            torch.testing.assert_close(deleted[row, step], expected)


def test_a_map_of_the_evidence_deletes_and_inserts_faster_than_random_order() -> None:
    """A blurred image is the start of insertion, the image itself its end."""
    images = torch.zeros((6, 1, 8, 8))
    images[:, :, :4, :4] = 1
    maps, classes = np.zeros((6, 2, 2)), torch.ones(6, dtype=torch.int64)
    maps[:, 0, 0] = 1
    ours = deletion_ranks(maps, (8, 8))
    random = deletion_ranks(random_maps(6, (2, 2), np.random.default_rng(0)), (8, 8))
    deleted, at_random = (
        area_under(deletion_curve(corner_share, images, classes, each)) for each in (ours, random)
    )
    inserted, inserted_at_random = (
        insertion_curve(corner_share, images, classes, each) for each in (ours, random)
    )
    assert deleted.mean() < at_random.mean() - 0.1
    assert area_under(inserted).mean() > area_under(inserted_at_random).mean()
    torch.testing.assert_close(inserted[:, -1], torch.ones(6))
    torch.testing.assert_close(inserted[:, 0], inserted_at_random[:, 0])


def test_the_area_is_that_of_the_trapezoidal_rule() -> None:
    curves = torch.tensor([[1.0, 0.5, 0.0], [1.0, 1.0, 1.0]])
    assert area_under(curves).tolist() == [0.5, 1.0]
