"""Blurs, sharpening and compression by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import lowering_of, unsupported_reason

from .parity import assert_parity, compare, described, pictures, worst

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


@pytest.mark.parametrize("transform", TRANSFORMS, ids=described)
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, pictures(), num_draws=2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.Sharpen(method="gaussian"), "bit-identical"),
        (A.ImageCompression(compression_type="webp"), "WebP"),
        (
            A.Downscale(interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}),
            "filter",
        ),
    ],
    ids=described,
)
def test_unsupported_options_have_a_reason(transform: Any, reason: str) -> None:
    for device in ("cpu", "gpu"):
        assert reason in unsupported_reason(transform, device=device, approximate=True)


ON_A_GPU_ONLY = [A.MedianBlur((3, 7), p=1), A.ChromaticAberration(mode="random", p=1)]


@pytest.mark.parametrize("transform", ON_A_GPU_ONLY, ids=described)
def test_transforms_without_a_cpu_operator_are_lowered_on_a_gpu_only(transform: Any) -> None:
    assert "GPU only" in unsupported_reason(transform, device="cpu", approximate=True)
    assert unsupported_reason(transform, device="gpu", approximate=False) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("transform", ON_A_GPU_ONLY, ids=described)
def test_lowering_on_a_gpu_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    found = compare(transform, pictures(), device="gpu")
    assert found.within(lowering.tolerance), f"expected {lowering.tolerance}, got {found}"


@pytest.mark.parametrize("picture", pictures(), ids=lambda p: f"{p.shape[0]}x{p.shape[1]}")
def test_lens_maps_equal_albumentations(picture: np.ndarray) -> None:
    transform = A.ChromaticAberration((-0.4, 0.4), (-0.4, 0.4), mode="random", p=1)
    lowering = lowering_of("ChromaticAberration")
    assert lowering is not None
    params = transform.get_params()
    maps = lowering.arguments_of(transform, params, picture.shape[:2])
    found = picture.copy()
    for channel, (x, y) in {0: maps[:2], 2: maps[2:]}.items():
        found[..., channel] = cv2.remap(picture[..., channel], x, y, cv2.INTER_LINEAR)
    assert worst([found], [transform.apply(picture, **params)]).max_levels <= 1
