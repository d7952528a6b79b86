"""On a GPU everything that touches a picture stays there; only arguments are on the host."""

from __future__ import annotations

from typing import Any

import pytest

from .parity import graph_of
from .test_crops import BOXED_CROPS, CROPS, PADS, RESIZES
from .test_distortions import DISTORTIONS, PIECEWISE
from .test_drops import DROPS
from .test_flips import FLIPS
from .test_warps import WARPS

TRANSFORMS = [*CROPS, *BOXED_CROPS, *RESIZES, *PADS, *FLIPS, *WARPS, *DROPS, *DISTORTIONS, PIECEWISE]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_what_touches_pictures_sits_on_the_gpu(transform: Any) -> None:
    assert_pictures_stay_on_the_gpu([transform])


def test_nothing_comes_back_between_the_transforms_of_a_policy() -> None:
    assert_pictures_stay_on_the_gpu(TRANSFORMS)


def assert_pictures_stay_on_the_gpu(transforms: list[Any]) -> None:
    """DALI lets no operator on the host take what is on the GPU, so those on the host see arguments alone."""
    placements = graph_of(transforms, "gpu").placements()
    on_the_host = {placement.operator for placement in placements if placement.device != "gpu"}
    assert on_the_host <= {"Split"}, "flags split the arguments on the host, and nothing else is there"
    splits_of_pictures = [p for p in placements if p.operator == "Split" and p.device == "gpu"]
    merges = [p for p in placements if p.operator == "Merge"]
    assert len(splits_of_pictures) == len(merges) == len(transforms)
