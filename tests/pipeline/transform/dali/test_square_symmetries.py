"""All eight symmetries of the square by DALI equal Albumentations."""

from __future__ import annotations

import albumentations as A
import pytest
from lightwell.pipeline.transform.params import TransformCall

from .parity import graph_of, pictures, worst

PICTURES = pictures()


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
