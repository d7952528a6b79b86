"""Color transforms by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason

from .parity import assert_parity, described, pictures

TRANSFORMS = [
    A.HueSaturationValue(p=0.8),
    A.HueSaturationValue(
        hue_shift_limit=(-180, 180), sat_shift_limit=(-255, 255), val_shift_limit=(-255, 255), p=1
    ),
    A.HueSaturationValue(hue_shift_limit=0, sat_shift_limit=0, val_shift_limit=0, p=1),
    A.ColorJitter(p=0.8),
    A.ColorJitter(brightness=(0, 3), contrast=(0, 3), saturation=(0, 3), hue=(-0.5, 0.5), p=1),
    A.ColorJitter(hue=(0, 0), p=1),
    A.ChannelShuffle(p=0.8),
    A.ChannelDropout(p=0.8),
    A.ChannelDropout(channel_drop_range=(1, 2), fill=77.7, p=1),
    *(
        A.ToGray(method=method, p=0.9)
        for method in ("weighted_average", "from_lab", "desaturation", "average", "max")
    ),
    A.ToSepia(p=0.8),
    A.PlanckianJitter(p=0.8),
    A.PlanckianJitter(mode="cied", sampling_method="gaussian", p=1),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=described)
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, pictures(), num_draws=2)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.ToGray(method="pca"), "principal component"),
        (A.ToGray(num_output_channels=1), "three"),
        (A.FancyPCA(), "FancyPCA"),
    ],
    ids=described,
)
def test_unsupported_options_have_a_reason(transform: Any, reason: str) -> None:
    for device in ("cpu", "gpu"):
        assert reason in unsupported_reason(transform, device=device, approximate=True)
