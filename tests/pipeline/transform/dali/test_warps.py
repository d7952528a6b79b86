"""Warps as a GPU computes them equal Albumentations within one level."""

from __future__ import annotations

from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.rng import derive_seed
from lightwell.pipeline.transform.dali.op_registry import lowering_of
from lightwell.pipeline.transform.params import ParamSampler

from .parity import pictures, worst

PICTURES = pictures()


def warp_in_float32(image: np.ndarray, inverse: np.ndarray, size: np.ndarray, fill: float) -> np.ndarray:
    """Warp as a GPU does: coordinates and weights in float32, blended with a constant border."""
    a = inverse.astype(np.float32)
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size[::-1]))
    depth = a[2, 0] * x + a[2, 1] * y + a[2, 2]
    places = [(a[i, 0] * x + a[i, 1] * y + a[i, 2]) / depth for i in (1, 0)]
    framed = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=round(fill)).astype(np.float32)
    inside = [np.clip(p, -1.5, side + 0.5) + 2 for p, side in zip(places, image.shape, strict=False)]
    floors = [np.floor(p).astype(int) for p in inside]
    (v, u), (j, i) = [p - f for p, f in zip(inside, floors, strict=True)], floors
    v, u = v[..., None], u[..., None]
    upper = framed[j, i] * (1 - u) + framed[j, i + 1] * u
    lower = framed[j + 1, i] * (1 - u) + framed[j + 1, i + 1] * u
    return np.rint(upper * (1 - v) + lower * v).astype(np.uint8)


@pytest.mark.parametrize(
    "transform",
    [
        A.Affine(scale=(0.5, 2), rotate=(-90, 90), shear=(-20, 20), fill=99.0, p=1),
        A.SafeRotate(p=1, fill=7.0),
        A.Perspective((0.05, 0.2), fill=(7.0, 7.0, 7.0), p=1),
    ],
    ids=lambda t: type(t).__name__,
)
def test_float32_results_of_a_gpu_are_within_the_tolerance(transform: Any) -> None:
    """On the CPU DALI calls OpenCV, so parity there says nothing about a GPU."""
    lowering = lowering_of(type(transform).__name__)
    assert lowering is not None
    param_sampler = ParamSampler(A.Compose([transform]), 1)
    found, references = [], []
    for number, picture in enumerate(PICTURES):
        (call,) = param_sampler.sample(derive_seed("float32", number, 0, ""), picture.shape[:2]).calls
        inverse, size = lowering.arguments_of(transform, call.params, call.size)
        found.append(warp_in_float32(picture, inverse, size, float(np.max(transform.fill))))
        references.append(transform.apply(picture, **call.params))
    assert worst(found, references).within(lowering.tolerance)
