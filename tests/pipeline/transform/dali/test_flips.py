"""Flips, rotations by 90 degrees and shuffled tiles by DALI equal Albumentations exactly."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.transform.dali.op_registry import unsupported_reason
from lightwell.pipeline.transform.params import TransformCall

from .parity import assert_parity, graph_of, pictures, worst

PICTURES = pictures()

with pytest.warns(UserWarning, match="alias"):
    TIME_REVERSE = A.TimeReverse(p=1)

FLIPS = [
    A.NoOp(p=1),
    A.HorizontalFlip(p=1),
    A.HorizontalFlip(p=0.5),
    A.VerticalFlip(p=1),
    A.Transpose(p=1),
    TIME_REVERSE,
    A.D4(p=1),
    A.SquareSymmetry(p=1),
    A.RandomRotate90(p=1),
    A.RandomGridShuffle((3, 4), p=1),
    A.RandomGridShuffle((8, 8), p=1),
    A.RandomGridShuffle((1, 40), p=1),
    A.RandomGridShuffle((1, 1), p=0.5),
]


@pytest.mark.parametrize("transform", FLIPS, ids=lambda t: type(t).__name__)
def test_parity(transform: Any) -> None:
    assert_parity(transform, PICTURES)


@pytest.mark.parametrize("element", ["e", "r90", "r180", "r270", "v", "hvt", "h", "t"])
def test_every_symmetry_of_the_square(element: str) -> None:
    transform = A.D4(p=1)
    params = {"group_element": element}
    graph = graph_of([transform], "cpu", len(PICTURES))
    calls = [(TransformCall(0, params, picture.shape[:2]),) for picture in PICTURES]
    outputs = graph.run(PICTURES, calls)
    found = [outputs.at(i) for i in range(len(PICTURES))]
    assert worst(found, [transform.apply(picture, **params) for picture in PICTURES]).max_levels == 0
    graph.close()


def test_too_many_tiles_are_unsupported() -> None:
    assert "at most 64 tiles" in unsupported_reason(
        A.RandomGridShuffle((9, 8)), device="gpu", approximate=False
    )
