"""On a GPU all operators on images run there; only arguments are on the host."""

from __future__ import annotations

from typing import Any

import pytest
from lightwell.pipeline.transform.dali.op_registry import lowering_of

from .parity import compare, graph_of, pictures
from .test_crops import BOXED_CROPS, CROPS, PADS, RESIZES
from .test_distortions import DISTORTIONS, PIECEWISE
from .test_drops import DROPS
from .test_flips import FLIPS
from .test_warps import WARPS

PICTURES = [picture for picture in pictures() if picture.size < 200_000]
TRANSFORMS = [*CROPS, *BOXED_CROPS, *RESIZES, *PADS, *FLIPS, *WARPS, *DROPS, *DISTORTIONS, PIECEWISE]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_operators_on_images_run_on_the_gpu(transform: Any) -> None:
    assert_pictures_stay_on_the_gpu([transform])


def test_nothing_is_copied_to_the_host_between_transforms() -> None:
    assert_pictures_stay_on_the_gpu(TRANSFORMS)


@pytest.mark.gpu
@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_parity_on_a_gpu(transform: Any) -> None:
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    found = compare(transform, PICTURES, device="gpu", num_draws=1, with_boxes=transform in BOXED_CROPS)
    assert found.within(lowering.tolerance_of(transform)), found


def assert_pictures_stay_on_the_gpu(transforms: list[Any]) -> None:
    """DALI host operators cannot take GPU inputs, so those on the host process arguments only."""
    placements = graph_of(transforms, "gpu").placements()
    on_the_host = {placement.operator for placement in placements if placement.device != "gpu"}
    assert on_the_host <= {"Split"}, "flags split the arguments on the host, and nothing else is there"
    splits_of_pictures = [p for p in placements if p.operator == "Split" and p.device == "gpu"]
    merges = [p for p in placements if p.operator == "Merge"]
    assert len(splits_of_pictures) == len(merges) == len(transforms)
