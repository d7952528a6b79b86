"""Crops, resizes and flips by DALI equal Albumentations within what the table declares."""

from __future__ import annotations

from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.lowering.table import lowering_of

from .parity import compare, pictures

TRANSFORMS = [A.HorizontalFlip(p=1), A.RandomResizedCrop((48, 56), p=1)]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: repr(t)[:60])
def test_lowering_equals_albumentations_within_its_declared_tolerance(transform: Any) -> None:
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    assert lowering.refuse(transform) == ""
    found = compare(transform, pictures())
    assert found.within(lowering.tolerance), f"wanted {lowering.tolerance}, got {found}"
