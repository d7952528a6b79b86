"""Distortions: DALI remaps on a GPU only, so the maps and the padding are tested here."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.rng import derive_seed
from lightwell.pipeline.transform.dali.op_registry import lowering_of
from lightwell.pipeline.transform.dali.ops.distortions import MARGIN
from lightwell.pipeline.transform.params import ParamSampler

from .cases import DISTORTIONS
from .parity import pictures, worst

PICTURES = [picture for picture in pictures() if picture.size < 200_000]


def remap_as_dali_does(transform: Any, image: np.ndarray, arguments: tuple[Any, ...]) -> np.ndarray:
    """Pad an image and remap it with a black border, the only one that DALI supports."""
    map_x, map_y, shape = arguments
    fill = transform.fill
    framed = cv2.copyMakeBorder(image, *[MARGIN] * 4, transform.border_mode, value=fill)
    assert framed.shape[:2] == tuple(shape)
    return cv2.remap(framed, np.float32(map_x), np.float32(map_y), cv2.INTER_LINEAR, borderValue=0)


@pytest.mark.parametrize("transform", DISTORTIONS, ids=lambda t: type(t).__name__)
def test_maps_fold_every_border_mode_into_the_padding(transform: Any) -> None:
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    param_sampler = ParamSampler(A.Compose([transform]), 1)
    found, references = [], []
    for i, picture in enumerate(PICTURES):
        (call,) = param_sampler.sample(derive_seed("maps", 0, i, ""), picture.shape[:2]).calls
        arguments = lowering.arguments_of(transform, call.params, call.size)
        found.append(remap_as_dali_does(transform, picture, arguments))
        references.append(transform.apply(picture, **call.params))
    assert worst(found, references).within(lowering.tolerance)
