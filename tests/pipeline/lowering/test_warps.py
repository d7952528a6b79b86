"""Rotations, affine and perspective warps by DALI equal Albumentations within one level."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import pytest
from lightwell.pipeline.lowering.table import why_not_lowered

from .parity import assert_parity, pictures
from .test_crops import BORDERS

PICTURES = pictures()

with pytest.warns(UserWarning, match="special case"):
    SHIFTS = [
        A.ShiftScaleRotate(p=1),
        A.ShiftScaleRotate(0.3, (0.1, 0.9), 180, border_mode=cv2.BORDER_WRAP, p=1),
    ]

WARPS = [
    *SHIFTS,
    *[A.Rotate(p=1, border_mode=mode, fill=(3, 200, 90)) for mode in BORDERS],
    A.Rotate(p=1, crop_border=True),
    A.Rotate((-180, 180), p=1, crop_border=True, border_mode=cv2.BORDER_REFLECT_101),
    A.Rotate((0, 0), p=1),
    A.SafeRotate(p=1, fill=7),
    A.SafeRotate((-180, 180), p=1, border_mode=cv2.BORDER_REFLECT),
    A.Affine(p=1),
    A.Affine(fit_output=True, p=1),
    A.Affine(
        scale=(0.5, 2),
        rotate=(-90, 90),
        shear=(-20, 20),
        translate_percent=(-0.2, 0.2),
        fill=99.5,
        p=1,
    ),
    A.Affine(scale=(0.3, 1.2), rotate=(-90, 90), fit_output=True, p=1),
    A.Affine(
        scale=(0.1, 1.2),
        shear=(-60, 60),
        border_mode=cv2.BORDER_REFLECT_101,
        interpolation=cv2.INTER_AREA,
        p=1,
    ),
    A.Affine(scale=(0.0, 0.0), p=1),
    A.Affine(translate_px=(-3, 3), p=1),
    A.Perspective(p=1),
    A.Perspective((0.1, 0.3), keep_size=False, fill=7, p=1),
    A.Perspective((0.1, 0.3), fit_output=True, fill=(7, 8, 9), p=1),
    A.Perspective((0.1, 0.3), fit_output=True, keep_size=False, border_mode=cv2.BORDER_REFLECT_101, p=1),
]


@pytest.mark.parametrize("transform", WARPS, ids=lambda t: type(t).__name__)
def test_parity(transform: Any) -> None:
    assert_parity(transform, PICTURES, num_draws=2)


@pytest.mark.parametrize(
    "transform",
    [
        cls(interpolation=interpolation)
        for cls in (A.Affine, A.Rotate, A.SafeRotate, A.Perspective)
        for interpolation in (cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
    ],
    ids=lambda t: type(t).__name__,
)
def test_other_interpolation_is_refused(transform: Any) -> None:
    assert "linear interpolation only" in why_not_lowered(transform, device="gpu", approximate=True)


def test_a_fill_that_opencv_does_not_take_is_refused() -> None:
    transform = A.Affine(fill=(1, 2, 3, 4, 5))
    assert "at most four levels" in why_not_lowered(transform, device="gpu", approximate=True)


def test_a_class_without_a_lowering_says_why() -> None:
    transform = A.GridElasticDeform((3, 3), 5)
    assert "every cell of a grid" in why_not_lowered(transform, device="gpu", approximate=True)
