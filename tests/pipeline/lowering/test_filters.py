"""Blurs, sharpening and losses by DALI equal Albumentations within what the table declares."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import pytest
from lightwell.pipeline.lowering.table import lowering_of, why_not_lowered

from .parity import assert_parity, compare, pictures

LINEAR = {"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_LINEAR}
NEAREST_THEN_LINEAR = {"downscale": cv2.INTER_NEAREST, "upscale": cv2.INTER_LINEAR}
LINEAR_THEN_NEAREST = {"downscale": cv2.INTER_LINEAR, "upscale": cv2.INTER_NEAREST}
TRANSFORMS = [
    A.Blur(p=0.8),
    A.Blur((9, 31), p=1),
    A.MotionBlur(p=0.8),
    A.MotionBlur((7, 21), allow_shifted=False, p=1),
    A.AdvancedBlur(p=0.8),
    A.AdvancedBlur((9, 15), sigma_x_limit=(1, 4), sigma_y_limit=(1, 4), p=1),
    A.GaussianBlur(p=0.8),
    A.GaussianBlur((3, 7), (0.1, 2.0), p=1),
    A.Defocus(p=0.8),
    A.Sharpen(p=0.8),
    A.Sharpen(alpha=(0, 1), lightness=(0, 3), p=1),
    A.Emboss(p=0.8),
    A.Emboss(alpha=(0, 1), strength=(0, 2), p=1),
    A.RingingOvershoot(p=0.8),
    A.UnsharpMask(p=0.8),
    A.UnsharpMask(blur_limit=(3, 9), sigma_limit=(0.5, 2), alpha=(0, 1), threshold=3, p=1),
    A.ImageCompression(p=0.8),
    A.ImageCompression(quality_range=(1, 100), p=1),
    A.Downscale(p=0.8),
    A.Downscale((0.1, 0.9), p=1),
    A.Downscale((0.1, 0.9), LINEAR, p=1),
    A.Downscale((0.1, 0.9), NEAREST_THEN_LINEAR, p=1),
    A.Downscale((0.1, 0.9), LINEAR_THEN_NEAREST, p=1),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, pictures(), num_draws=2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.Sharpen(method="gaussian"), "to the last bit"),
        (A.ImageCompression(compression_type="webp"), "WebP"),
        (
            A.Downscale(interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}),
            "filter",
        ),
    ],
    ids=repr,
)
def test_options_that_dali_cannot_take_are_refused_with_a_reason(transform: Any, reason: str) -> None:
    for device in ("cpu", "gpu"):
        assert reason in why_not_lowered(transform, device=device, approximate=True)


def test_median_is_lowered_on_a_gpu_only() -> None:
    assert "GPU only" in why_not_lowered(A.MedianBlur(), device="cpu", approximate=True)
    assert why_not_lowered(A.MedianBlur(), device="gpu", approximate=False) == ""


@pytest.mark.gpu
def test_median_equals_albumentations_within_its_declared_tolerance() -> None:
    lowering = lowering_of("MedianBlur")
    assert lowering is not None
    found = compare(A.MedianBlur((3, 7), p=1), pictures(), device="gpu")
    assert found.within(lowering.tolerance), f"wanted {lowering.tolerance}, got {found}"
