"""Random sequences of geometric transforms in one graph stay within the sum of what is declared for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import albumentations as A
import numpy as np
from albumentations.augmentations.crops.transforms import CropSizeError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from lightwell.pipeline.transform.dali.lowering import Tolerance
from lightwell.pipeline.transform.dali.op_registry import lowering_of, unsupported_reason
from lightwell.pipeline.transform.params import leaf_transforms

from .cases import BOXED, GEOMETRY
from .parity import compare, pictures

PICTURES = [picture for picture in pictures() if picture.size < 100_000]
ALL = [
    transform
    for transform in GEOMETRY
    if transform not in BOXED and unsupported_reason(transform, device="cpu", approximate=False) == ""
]


def leaves() -> st.SearchStrategy[Any]:
    """Any transform, with p=1 or below."""
    return st.sampled_from(ALL)


def steps() -> st.SearchStrategy[Any]:
    """A transform, or a choice of two."""
    choices = st.lists(leaves(), min_size=2, max_size=2, unique_by=id)
    return st.one_of(leaves(), choices.map(lambda two: A.OneOf(two, p=0.7)))


def sum_of_tolerances(transforms: Sequence[Any]) -> Tolerance:
    """Add up the bounds.

    No lowered transform enlarges a difference: all of them move levels, or mix them with weights that are positive
    and sum to one.
    """
    bounds = []
    for transform in leaf_transforms(transforms):
        lowering = lowering_of(type(transform).__name__)
        assert lowering is not None
        bounds.append(lowering.tolerance_of(transform).max_levels or 0)
    return Tolerance(max_levels=sum(bounds))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(steps(), min_size=2, max_size=4, unique_by=id))
def test_sequence_stays_within_the_sum_of_tolerances(transforms: list[Any]) -> None:
    leaves = list(leaf_transforms(transforms))
    assume(len({id(leaf) for leaf in leaves}) == len(leaves))
    try:
        found = compare(transforms, PICTURES, num_draws=1)
    except (CropSizeError, ValueError) as error:
        assert any(text in str(error) for text in ("expected a crop", "exceeds", "out of valid range"))  # noqa: PT017
        assume(False)  # a crop that is larger than what came before it
        raise
    assert found.within(sum_of_tolerances(transforms)), found


def test_two_transforms_of_a_class_keep_their_own_arguments() -> None:
    transforms = [A.RandomCrop(30, 40), A.HorizontalFlip(p=0.5), A.RandomCrop(20, 25), A.Rotate(p=0.5)]
    assert compare(transforms, PICTURES, num_draws=2).max_levels <= 1


def test_extreme_values_do_not_overflow() -> None:
    ends = [np.full((40, 50, 3), level, np.uint8) for level in (0, 255)]
    transforms = [A.Affine(scale=(0.5, 2), rotate=(-90, 90), fill=255, p=1), A.Resize(31, 64)]
    assert compare(transforms, ends, num_draws=3).max_levels <= 1
