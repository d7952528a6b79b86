"""Crops, resizes and pads by DALI equal Albumentations within the declared tolerance."""

from __future__ import annotations

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason

from .cases import BORDERS
from .parity import assert_parity


@pytest.mark.parametrize("mode", BORDERS)
def test_padding_of_images_of_one_or_two_pixels(mode: int) -> None:
    tiny = [
        np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
        for size in ((1, 1), (1, 7), (2, 3))
    ]
    assert_parity(A.Pad((9, 7), border_mode=mode), tiny, num_draws=1)


@pytest.mark.parametrize("interpolation", [cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
def test_a_different_filter_is_used_only_on_request(interpolation: int) -> None:
    transform = A.RandomResizedCrop((48, 56), interpolation=interpolation)
    reason = unsupported_reason(transform, device="gpu", approximate=False)
    assert "lowering: approximate" in reason
    assert "at least 33 dB" in reason
    assert unsupported_reason(transform, device="gpu", approximate=True) == ""
