"""What every lowering has to show, by the registry: a new one is tried with its defaults and with random options."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from albumentations.augmentations.crops.transforms import CropSizeError
from hypothesis import HealthCheck, assume, given, settings
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.policy.channel_options import check_channels
from lightwell.pipeline.transform.dali.graph import Placement
from lightwell.pipeline.transform.dali.op_registry import (
    OP_MODULES,
    depth_of,
    lowering_of,
    unsupported_reason,
)
from lightwell.pipeline.transform.output_shapes import needs_pixels_reason
from transforms import made, transforms_of

from .cases import CASES, DISTORTIONS, GEOMETRY, PIECEWISE
from .parity import BOXES, DRAW_FROM_BOXES, assert_parity, compare, graph_of, pictures

REGISTERED = [name for rules in OP_MODULES for lowering in rules.LOWERINGS for name in lowering.transforms]
PICTURES = pictures()
UP_TO_VGA = [picture for picture in PICTURES if picture.size < 640 * 480 * 3]
"""For transforms of levels, which no large coordinates can lead astray."""
SMALL = [picture for picture in PICTURES if picture.size < 40_000][:3]
SPECKS = [(1, 1), (1, 7), (5, 1), (2, 3), (3, 2), (4, 9)]
ON_THE_HOST = {"Split", "ValidateLogical", "Not_", "ArithmeticGenericOp", "TensorSubscript"}
"""Operators on flags and sampled orders."""


def shown(transform: Any) -> str:
    return type(transform).__name__


def runs_on(transform: Any, device: Any) -> bool:
    return unsupported_reason(transform, device=device, approximate=True) == ""


HAVE_CASES = {shown(transform) for transform in CASES}
ALL = [*CASES, *(made(name) for name in REGISTERED if name not in HAVE_CASES)]
ON_CPU = [transform for transform in ALL if runs_on(transform, "cpu")]


@pytest.mark.parametrize("name", REGISTERED)
def test_every_lowering_is_tried_with_options_that_it_supports_on_a_gpu(name: str) -> None:
    assert any(shown(transform) == name and runs_on(transform, "gpu") for transform in ALL)
    assert name not in HAVE_CASES or all(runs_on(case, "gpu") for case in CASES if shown(case) == name)


@pytest.mark.parametrize("transform", ON_CPU, ids=shown)
def test_it_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, PICTURES if transform in GEOMETRY else UP_TO_VGA)


@pytest.mark.gpu
@pytest.mark.parametrize("transform", ALL, ids=shown)
def test_on_a_gpu_it_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    assert_parity(transform, PICTURES, device="gpu", num_draws=1)


@pytest.mark.parametrize("transform", ALL, ids=shown)
def test_pictures_come_from_the_gpu_and_stay_there(transform: Any) -> None:
    assert_pictures_stay_on_the_gpu([transform])


@pytest.mark.parametrize("transform", ALL, ids=shown)
def test_it_adds_no_more_operators_in_sequence_than_it_declares(transform: Any) -> None:
    for device in ("cpu", "gpu") if runs_on(transform, "cpu") else ("gpu",):
        assert 1 <= added_depth(transform, device) <= depth_of(transform)


def added_depth(transform: Any, device: Any) -> int:
    """Count the operators in sequence that a transform adds to a graph."""
    return defined((transform, transform), device)[1] - defined((transform,), device)[1]


@cache
def defined(transforms: tuple[Any, ...], device: Any) -> tuple[list[Placement], int]:
    """Return the operators of a graph, and how many of them are in sequence."""
    graph = graph_of(transforms, device)
    placements = graph.placements()
    found: dict[int, int] = {}
    for operator in graph._pipeline._ops:  # sources first
        edges = [edge for one in operator.inputs for edge in (one if isinstance(one, list) else [one])]
        found[id(operator)] = 1 + max((found[id(edge.source)] for edge in edges), default=0)
    return placements, max(found.values())


def test_nothing_is_copied_to_the_host_between_transforms() -> None:
    assert_pictures_stay_on_the_gpu([*GEOMETRY, *DISTORTIONS, PIECEWISE])


def assert_pictures_stay_on_the_gpu(transforms: Sequence[Any]) -> None:
    """DALI's host operators cannot take what is on a GPU, so those on the host process arguments only."""
    placements, _ = defined(tuple(transforms), "gpu")
    assert placements[0].device == placements[-1].device == "gpu"
    assert {place.operator for place in placements if place.device != "gpu"} <= ON_THE_HOST
    splits_of_pictures = [one for one in placements if one.operator == "Split" and one.device == "gpu"]
    assert len(splits_of_pictures) >= len(transforms)


def albumentations_can(transform: Any, picture: np.ndarray) -> bool:
    """Return whether Albumentations alone can apply a transform to a picture several times."""
    boxes = A.BboxParams("albumentations") if shown(transform) in DRAW_FROM_BOXES else None
    targets = {"bboxes": BOXES} if boxes else {}
    always = copy.deepcopy(transform)
    always.p = 1
    alone = A.Compose([always], bbox_params=boxes, seed=1)
    try:
        return all(alone(image=picture, **targets)["image"].ndim == 3 for _ in range(8))
    except (ValueError, TypeError, ArithmeticError, RuntimeWarning, cv2.error, CropSizeError):
        return False


@pytest.mark.parametrize("transform", [one for one in ON_CPU if one not in GEOMETRY], ids=shown)
def test_pictures_of_one_and_of_a_few_pixels_in_one_batch_equal_albumentations(transform: Any) -> None:
    rng = np.random.default_rng(7)
    specks = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SPECKS]
    usable = [one for one in specks if albumentations_can(transform, one)]  # ToGray refuses a single column
    if not usable:
        pytest.skip("Albumentations applies it to none of them")
    assert_parity(transform, usable)


@pytest.mark.parametrize(
    "name", [name for name in REGISTERED if not getattr(lowering_of(name), "gpu_only", "")]
)
def test_any_options_that_it_does_not_refuse_equal_albumentations(name: str) -> None:
    tried = []

    @settings(max_examples=3, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(transform=transforms_of(name))
    def check(transform: Any) -> None:
        try:
            check_channels(transform, name)
        except PlanError:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd options
            if needs_pixels_reason(transform) or not runs_on(transform, "cpu"):
                return
            assume(all(albumentations_can(transform, picture) for picture in SMALL))
            assert_parity(transform, SMALL, num_draws=1)
            assert added_depth(transform, "cpu") <= depth_of(transform)
        tried.append(transform)

    check()
    assert tried or not runs_on(made(name), "cpu")


def test_successive_lowerings_add_up() -> None:
    chain = [
        A.RandomResizedCrop((64, 72), p=1),
        A.OneOf([A.Posterize(), A.Solarize(), A.ChannelShuffle()], p=1),
        A.HorizontalFlip(p=0.5),
        A.ToGray(p=0.5),
        A.OneOf([A.InvertImg(), A.SaltAndPepper(), A.RGBShift()], p=0.7),
        A.PixelDropout(p=0.5),
    ]
    listed = [leaf for step in chain for leaf in getattr(step, "transforms", [step])]
    found = compare(listed, PICTURES, num_draws=2)
    assert found.min_psnr_db > 35
