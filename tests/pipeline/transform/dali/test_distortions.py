"""Distortions: DALI remaps on a GPU only, so the maps and the padding are tested here."""

from __future__ import annotations

from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.rng import derive_seed
from lightwell.pipeline.transform.dali.op_registry import lowering_of, unsupported_reason
from lightwell.pipeline.transform.dali.ops.distortions import MARGIN
from lightwell.pipeline.transform.params import ParamSampler

from .parity import pictures, worst
from .test_crops import BORDERS

PICTURES = [picture for picture in pictures() if picture.size < 200_000]

with pytest.warns(UserWarning, match="very slow"):
    PIECEWISE, PIECEWISE_OF_NOTHING = (A.PiecewiseAffine((low, 0.1), p=1) for low in (0.05, 0))

DISTORTIONS = [
    A.ElasticTransform(300, 5, p=1),
    A.ElasticTransform(30, 5, fill=9, p=1),
    *[A.GridDistortion(distort_limit=(-1, 1), normalized=False, border_mode=mode, p=1) for mode in BORDERS],
    *[A.ThinPlateSpline((0.9, 1), border_mode=mode, fill=(9, 8, 7), p=1) for mode in BORDERS],
    A.OpticalDistortion((-0.9, 0.9), interpolation=cv2.INTER_AREA, p=1),
    A.OpticalDistortion((-0.9, 0.9), mode="fisheye", border_mode=cv2.BORDER_REFLECT, p=1),
]


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


@pytest.mark.parametrize("transform", [*DISTORTIONS, PIECEWISE], ids=lambda t: type(t).__name__)
def test_supported_on_a_gpu_and_not_on_a_cpu(transform: Any) -> None:
    assert unsupported_reason(transform, device="gpu", approximate=False) == ""
    assert (
        unsupported_reason(transform, device="cpu", approximate=True) == "DALI's remap runs on the GPU only"
    )


@pytest.mark.parametrize(
    ("transform", "reason"),
    [
        (A.ElasticTransform(interpolation=cv2.INTER_CUBIC), "linear interpolation only"),
        (PIECEWISE_OF_NOTHING, "scale of 0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unsupported_reason(transform: Any, reason: str) -> None:
    assert reason in unsupported_reason(transform, device="gpu", approximate=True)
