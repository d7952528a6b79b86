"""Dropout, erosion and dilation by DALI equal Albumentations exactly."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason

from .parity import assert_parity, pictures

PICTURES = pictures()

with pytest.warns(UserWarning, match="specialized version"):
    SPECTRAL = [A.TimeMasking(20, p=1), A.FrequencyMasking(20, p=1)]

DROPS = [
    *SPECTRAL,
    A.CoarseDropout(p=1),
    A.CoarseDropout((3, 9), (5, 20), (3, 30), fill=(9, 200, 7), p=1),
    A.CoarseDropout((3, 9), (0.1, 0.2), (0.1, 0.3), fill=9.7, p=1),
    A.Erasing(scale=(0.01, 0.02), fill=77, p=1),
    A.Erasing(p=1),
    A.CoarseDropout((3, 9), (5, 20), (3, 30), fill="random", p=1),
    A.GridDropout(fill="random_uniform", p=1),
    A.XYMasking(0, 0, 12, (3, 20), fill="random", p=1),
    A.GridDropout(p=1),
    A.GridDropout(0.3, unit_size_range=(5, 20), fill=3, p=1),
    A.GridDropout(0.9, holes_number_xy=(5, 7), fill=3, p=1),
    A.XYMasking(2, (1, 3), 12, (3, 20), fill=(3, 4, 5), p=1),
    A.XYMasking(0, 0, 12, (3, 20), p=1),
    A.PixelDropout(0.1, p=1),
    A.PixelDropout(0.5, per_channel=True, drop_value=None, p=1),
    A.PixelDropout(0.2, drop_value=(3, 4, 5), p=1),
    A.Morphological(p=1),
    A.Morphological((3, 3), "erosion", p=1),
    A.Morphological((2, 5), "erosion", p=1),
    A.Morphological(1, "dilation", p=1),
    A.Morphological((5, 7), p=1),
]


@pytest.mark.parametrize("transform", DROPS, ids=lambda t: type(t).__name__)
def test_parity(transform: Any) -> None:
    assert_parity(transform, PICTURES)


def test_parity_of_holes_in_boxes() -> None:
    transform = A.ConstrainedCoarseDropout((2, 4), (0.1, 0.5), (0.1, 0.5), bbox_labels=[1, 2], fill=9, p=1)
    assert_parity(transform, PICTURES, with_boxes=True)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.CoarseDropout(fill="inpaint_ns"), "does not inpaint"),
        (A.Morphological((9, 9)), "neighbours"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_reason(transform: Any, reason: str) -> None:
    assert reason in unsupported_reason(transform, device="gpu", approximate=True)
