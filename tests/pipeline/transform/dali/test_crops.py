"""Crops, resizes and pads by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason

from .parity import assert_parity, pictures

PICTURES = pictures()
BORDERS = [
    cv2.BORDER_CONSTANT,
    cv2.BORDER_REPLICATE,
    cv2.BORDER_REFLECT,
    cv2.BORDER_WRAP,
    cv2.BORDER_REFLECT_101,
]

CROPS = [
    A.RandomCrop(20, 30),
    A.RandomCrop(300, 130, pad_if_needed=True, pad_position="random", fill=(3, 9, 200)),
    A.CenterCrop(33, 20),
    A.CenterCrop(300, 500, pad_if_needed=True, fill=7),
    A.Crop(3, 5, 30, 30),
    A.Crop(3, 5, 300, 90, pad_if_needed=True, pad_position="bottom_right", border_mode=cv2.BORDER_REFLECT),
    A.RandomCropFromBorders(0.3, 0.2, 0.1, 0.4),
    A.CropAndPad(px=5),
    A.CropAndPad(px=-5),
    A.CropAndPad(px=(-6, 9), keep_size=False, fill=200),
    A.CropAndPad(px=(-6, 9), keep_size=False, fill=(20, 230)),
    A.CropAndPad(px=(1, 9), keep_size=False, fill=(10, 200, 90)),
    A.CropAndPad(percent=(0, 0.3), fill=(20, 230)),
    A.CropAndPad(percent=(-0.3, 0.3), border_mode=cv2.BORDER_REFLECT_101),
    A.CropAndPad(percent=(-0.3, 0.3), keep_size=False, interpolation=cv2.INTER_AREA),
    A.CropAndPad(percent=(-0.3, 0.3), interpolation=cv2.INTER_CUBIC),
    A.RandomResizedCrop((48, 56)),
    A.RandomResizedCrop((48, 156), interpolation=cv2.INTER_LINEAR_EXACT),
    A.RandomResizedCrop((148, 56), interpolation=cv2.INTER_CUBIC),
    A.RandomResizedCrop((48, 56), interpolation=cv2.INTER_LANCZOS4),
    A.RandomSizedCrop((20, 30), (64, 40), w2h_ratio=1.3),
]
BOXED_CROPS = [
    A.RandomSizedBBoxSafeCrop(48, 56),
    A.RandomSizedBBoxSafeCrop(40, 60, erosion_rate=0.9),
    A.BBoxSafeRandomCrop(),
    A.BBoxSafeRandomCrop(0.5),
    A.AtLeastOneBBoxRandomCrop(20, 30),
    A.AtLeastOneBBoxRandomCrop(33, 10, erosion_factor=0.5),
]
RESIZES = [
    A.Resize(48, 56),
    A.Resize(224, 224),
    A.Resize(33, 47),
    A.Resize(300, 40, interpolation=cv2.INTER_CUBIC),
    A.Resize(30, 400, interpolation=cv2.INTER_LANCZOS4),
    A.SmallestMaxSize(97),
    A.SmallestMaxSize(max_size_hw=(100, 50)),
    A.LongestMaxSize([64, 100, 200]),
    A.LongestMaxSize(max_size_hw=(40, None)),
    A.RandomScale((-0.5, 0.5), p=1),
]
PADS = [
    A.Pad((3, 7, 11, 50), fill=(9, 8, 7)),
    A.Pad(5, border_mode=cv2.BORDER_WRAP),
    A.PadIfNeeded(200, 200, fill=12.6),
    A.PadIfNeeded(None, None, pad_height_divisor=32, pad_width_divisor=64, position="random"),
    *[A.PadIfNeeded(400, 400, border_mode=mode) for mode in BORDERS],
]


@pytest.mark.parametrize("transform", [*CROPS, *RESIZES, *PADS], ids=lambda t: type(t).__name__)
def test_parity(transform: Any) -> None:
    assert_parity(transform, PICTURES, num_draws=2)


@pytest.mark.parametrize("transform", BOXED_CROPS, ids=lambda t: type(t).__name__)
def test_parity_with_boxes(transform: Any) -> None:
    assert_parity(transform, PICTURES, with_boxes=True)


@pytest.mark.parametrize("mode", BORDERS)
def test_padding_of_images_of_one_or_two_pixels(mode: int) -> None:
    tiny = [
        np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((1, 1), (1, 7), (2, 3))
    ]
    assert_parity(A.Pad((9, 7), border_mode=mode), tiny, num_draws=1)


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.Resize(9, 9, interpolation=cv2.INTER_NEAREST), "nearest neighbour rounds down"),
        (A.Resize(9, 9, interpolation=cv2.INTER_NEAREST_EXACT), "rounds ties"),
        (A.Resize(9, 9, interpolation=cv2.INTER_AREA), "no area filter"),
        (A.SmallestMaxSize(9, area_for_downscale="image"), "no area filter"),
        (A.RandomResizedCrop((9, 9), area_for_downscale="image_mask"), "no area filter"),
        (A.RandomSizedBBoxSafeCrop(9, 9, interpolation=cv2.INTER_AREA), "no area filter"),
        (A.CropAndPad(px=1, interpolation=cv2.INTER_NEAREST), "nearest"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_reason(transform: Any, reason: str) -> None:
    assert reason in unsupported_reason(transform, device="cpu", approximate=True)
    assert reason in unsupported_reason(transform, device="gpu", approximate=False)


@pytest.mark.parametrize("interpolation", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_a_different_filter_is_used_only_on_request(interpolation: int) -> None:
    transform = A.RandomResizedCrop((48, 56), interpolation=interpolation)
    reason = unsupported_reason(transform, device="gpu", approximate=False)
    assert "lowering: approximate" in reason
    assert "at least 33 dB" in reason
    assert unsupported_reason(transform, device="gpu", approximate=True) == ""
