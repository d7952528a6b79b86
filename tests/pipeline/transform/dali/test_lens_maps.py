"""The maps of a lens by which colours part equal Albumentations."""

from __future__ import annotations

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.op_registry import lowering_of

from .parity import pictures, worst


@pytest.mark.parametrize("picture", pictures(), ids=lambda p: f"{p.shape[0]}x{p.shape[1]}")
def test_lens_maps_equal_albumentations(picture: np.ndarray) -> None:
    transform = A.ChromaticAberration((-0.4, 0.4), (-0.4, 0.4), mode="random", p=1)
    lowering = lowering_of("ChromaticAberration")
    assert lowering is not None
    params = transform.get_params()
    maps = lowering.arguments_of(transform, params, picture.shape[:2])
    found = picture.copy()
    for channel, (x, y) in {0: maps[:2], 2: maps[2:]}.items():
        found[..., channel] = cv2.remap(picture[..., channel], x, y, cv2.INTER_LINEAR)
    assert worst([found], [transform.apply(picture, **params)]).max_levels <= 1
