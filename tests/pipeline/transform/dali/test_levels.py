"""Point operations by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason
from lightwell.pipeline.transform.output_shapes import needs_pixels_reason

from .parity import assert_parity, described, pictures

TRANSFORMS = [
    A.RandomBrightnessContrast(p=0.8),
    A.RandomBrightnessContrast(brightness_limit=(-0.9, 0.9), contrast_limit=(-0.9, 2), p=1),
    A.RandomBrightnessContrast(ensure_safe_range=True, p=1),
    A.RandomGamma(p=0.8),
    A.RandomGamma((20, 400), p=1),
    A.RandomToneCurve(p=0.8),
    A.RandomToneCurve(scale=0.6, per_channel=True, p=1),
    A.InvertImg(p=0.8),
    A.Solarize(p=0.8),
    A.Solarize(threshold_range=(0, 1), p=1),
    A.Posterize(p=0.8),
    A.Posterize(num_bits=(1, 7), p=1),
    A.Posterize(num_bits=[(1, 7), (2, 5), (3, 3)], p=1),
    A.Equalize(p=0.8),
    A.Equalize(by_channels=False, p=1),
    A.AutoContrast(p=0.8),
    A.AutoContrast(method="pil", p=1),
    A.CLAHE(clip_limit=(4, 4), p=0.8),
    A.CLAHE(clip_limit=(2.5, 2.5), tile_grid_size=(3, 5), p=1),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=described)
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, pictures(), num_draws=2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.RandomBrightnessContrast(brightness_by_max=False), "from pixels"),
        (A.Equalize(mode="pil"), "rounds the histogram differently"),
        (A.Equalize(mask=np.ones((4, 4), np.uint8)), "without a mask"),
        (A.Equalize(mask=lambda image: image), "without a mask"),
        (A.CLAHE(), "one limit"),
        (A.AutoContrast(cutoff=2), "histogram"),
        (A.AutoContrast(ignore=7), "histogram"),
    ],
    ids=described,
)
def test_unsupported_options_have_a_reason(transform: Any, reason: str) -> None:
    for device in ("cpu", "gpu"):
        assert reason in unsupported_reason(transform, device=device, approximate=True)


@pytest.mark.parametrize(
    "transform",
    [A.RandomBrightnessContrast(brightness_by_max=False), A.Equalize(mask=lambda image: image)],
    ids=described,
)
def test_options_whose_params_depend_on_pixels_are_not_sampled_early(transform: Any) -> None:
    assert "from pixels" in needs_pixels_reason(transform)
