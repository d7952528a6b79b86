"""On a GPU everything that touches a picture stays there, and rules work one behind the other."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest

from .parity import compare, graph_of, pictures
from .test_colors import TRANSFORMS as COLORS
from .test_filters import ON_A_GPU_ONLY
from .test_filters import TRANSFORMS as FILTERS
from .test_levels import TRANSFORMS as LEVELS
from .test_noise import TRANSFORMS as NOISE

ON_THE_HOST = {"Split", "ValidateLogical", "Not_", "ArithmeticGenericOp", "TensorSubscript"}
"""What becomes of flags and of drawn orders."""


@pytest.mark.parametrize(
    "transform", [*LEVELS, *COLORS, *FILTERS, *NOISE, *ON_A_GPU_ONLY], ids=lambda t: type(t).__name__
)
def test_what_touches_pictures_sits_on_the_gpu(transform: Any) -> None:
    placed = graph_of([transform], "gpu").placements()
    assert placed[0].device == placed[-1].device == "gpu", "pictures come from the GPU and stay there"
    assert {place.operator for place in placed if place.device != "gpu"} <= ON_THE_HOST


def test_rules_one_behind_the_other_add_up() -> None:
    chain = [
        A.RandomResizedCrop((64, 72), p=1),
        A.OneOf([A.Posterize(), A.Solarize(), A.ChannelShuffle()], p=1),
        A.HorizontalFlip(p=0.5),
        A.ToGray(p=0.5),
        A.OneOf([A.InvertImg(), A.SaltAndPepper(), A.RGBShift()], p=0.7),
        A.PixelDropout(p=0.5),
    ]
    listed = [leaf for step in chain for leaf in getattr(step, "transforms", [step])]
    found = compare(listed, pictures(), num_draws=2)
    assert found.min_psnr_db > 35
