"""Noise, light and weather by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason

from .parity import assert_parity, described, pictures

GAUSSIAN = {"mean_range": (-0.2, 0.2), "std_range": (0.1, 0.2)}
LAPLACE = {"mean_range": (0, 0), "scale_range": (0.1, 0.2)}
BETA = {"alpha_range": (0.5, 1), "beta_range": (0.5, 1), "scale_range": (0.1, 0.5)}
TRANSFORMS = [
    A.GaussNoise(p=0.8),
    A.GaussNoise((0.0, 0.1), (-0.5, 0.5), per_channel=False, noise_scale_factor=0.5, p=1),
    A.AdditiveNoise(noise_params={"ranges": [(-0.2, 0.2)]}, p=0.8),
    A.AdditiveNoise("gaussian", "per_pixel", GAUSSIAN, approximation=0.3, p=1),
    A.AdditiveNoise("laplace", "shared", LAPLACE, p=1),
    A.AdditiveNoise("beta", "per_pixel", BETA, p=1),
    A.RGBShift(p=0.8),
    A.RGBShift((-255, 255), (0, 255), (0.1, 0.4), p=1),
    A.MultiplicativeNoise(p=0.8),
    A.MultiplicativeNoise((0, 3), per_channel=True, p=1),
    A.MultiplicativeNoise((0, 3), elementwise=True, p=1),
    A.MultiplicativeNoise((0, 3), per_channel=True, elementwise=True, p=1),
    A.SaltAndPepper(p=0.8),
    A.SaltAndPepper((0.2, 0.9), (0, 1), p=1),
    A.Illumination(p=0.8),
    A.Illumination("corner", (0.1, 0.2), p=1),
    A.Illumination("gaussian", (0.1, 0.2), p=1),
    A.PlasmaShadow(p=0.8),
    A.PlasmaBrightnessContrast(p=0.8),
    A.PlasmaBrightnessContrast((0.1, 0.9), (0.1, 0.9), p=1),
    A.RandomShadow(p=0.8),
    A.RandomShadow((0, 0, 1, 1), (1, 2), shadow_intensity_range=(0, 1), p=1),
    A.RandomRain(p=0.8),
    A.RandomRain((-20, 20), 5, 2, (10, 255, 99), 1, 1.0, "heavy", p=1),
    A.Spatter(p=0.8),
    A.Spatter(mode="mud", p=1),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=described)
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, pictures(), num_draws=2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.RandomShadow(num_shadows_limit=(1, 3)), "more than two"),
    ],
    ids=described,
)
def test_unsupported_options_have_a_reason(transform: Any, reason: str) -> None:
    for device in ("cpu", "gpu"):
        assert reason in unsupported_reason(transform, device=device, approximate=True)
