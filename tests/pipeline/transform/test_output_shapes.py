"""Sampling without pixels equals Albumentations on pixels: params, sizes and generators."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import albumentations as A
import numpy as np
import pytest
from lightwell.pipeline.policy.registry import transform_classes
from lightwell.pipeline.rng import derive_seed, numpy_generator, python_random
from lightwell.pipeline.transform.output_shapes import SHAPE_FUNCTIONS, needs_pixels_reason
from lightwell.pipeline.transform.params import ParamSampler
from pictures import make_picture

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "AdditiveNoise": [{"spatial_mode": "per_pixel"}, {"spatial_mode": "shared", "noise_type": "beta"}],
    "Affine": [
        {},
        {"fit_output": True},
        {"fit_output": True, "scale": (0.4, 2), "rotate": (-90, 90), "shear": (-20, 20)},
    ],
    "AtLeastOneBBoxRandomCrop": [{"height": 20, "width": 30}],
    "CenterCrop": [
        {"height": 20, "width": 30},
        {"height": 90, "width": 50, "pad_if_needed": True, "pad_position": "random"},
    ],
    "ConstrainedCoarseDropout": [{"bbox_labels": [1, 2], "num_holes_range": (2, 4)}],
    "Crop": [{"x_max": 30, "y_max": 20}, {"x_max": 30, "y_min": 40, "y_max": 120, "pad_if_needed": True}],
    "CropAndPad": [{"px": (-9, 9)}, {"percent": (-0.3, 0.2), "keep_size": False}, {"px": 3, "fill": (2, 9)}],
    "GridDropout": [{}, {"unit_size_range": (5, 20)}, {"holes_number_xy": (3, 5)}],
    "GridElasticDeform": [{"num_grid_xy": (3, 4), "magnitude": 5}],
    "LongestMaxSize": [{"max_size": [30, 50]}, {"max_size_hw": (40, 90)}],
    "MultiplicativeNoise": [{"elementwise": True, "per_channel": True}],
    "Pad": [{"padding": (3, 4, 5, 6)}],
    "PadIfNeeded": [
        {"min_height": 100, "min_width": 70, "position": "random"},
        {"min_height": None, "min_width": None, "pad_height_divisor": 32, "pad_width_divisor": 7},
    ],
    "Perspective": [{}, {"keep_size": False}, {"keep_size": False, "fit_output": True}],
    "PixelDropout": [{}, {"per_channel": True, "drop_value": None}],
    "RandomCrop": [{"height": 20, "width": 30}],
    "RandomResizedCrop": [{"size": (20, 30)}],
    "RandomSizedBBoxSafeCrop": [{"height": 20, "width": 30}],
    "RandomSizedCrop": [{"min_max_height": (10, 40), "size": (20, 30), "w2h_ratio": 1.5}],
    "Resize": [{"height": 20, "width": 30}],
    "Rotate": [{}, {"crop_border": True}],
    "SmallestMaxSize": [{"max_size": 30}, {"max_size_hw": (40, None)}],
    "Spatter": [{"mode": "rain"}, {"mode": "mud"}],
    "XYMasking": [{"num_masks_x": (1, 3), "num_masks_y": 2, "mask_x_length": (3, 9), "mask_y_length": 5}],
}
"""Options of classes that require or depend on them; other classes are tested with defaults."""

NOT_TRIED = {
    "BasicTransform",
    "CropNonEmptyMaskIfExists",
    "DualTransform",
    "ImageOnlyTransform",
    "TextImage",
}
"""Base classes, and classes that are never sampled early, whatever their options."""

SIZES = ((64, 80), (75, 49))
BOXES = np.array([[0.2, 0.3, 0.5, 0.65, 1], [0.45, 0.4, 0.8, 0.9, 2]])


def instances() -> list[Any]:
    """Every transform that can be sampled early, with every set of options and p=1."""
    made = []
    for name, cls in sorted(transform_classes().items()):
        if issubclass(cls, A.BaseCompose) or name.endswith("3D") or name in NOT_TRIED:
            continue
        for options in OPTIONS.get(name, [{}]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # advice
                transform = cls(**options, p=1)
            if not needs_pixels_reason(transform):
                made.append(transform)
    return made


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_equal(mine, theirs)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("transform", instances(), ids=lambda t: type(t).__name__)
def test_sampling_without_pixels_equals_albumentations_on_pixels(transform: Any) -> None:
    boxed = "bboxes" in transform.available_keys
    targets = {"bboxes": BOXES} if boxed else {}
    compose = A.Compose([transform], bbox_params=A.BboxParams("albumentations") if boxed else None)
    param_sampler = ParamSampler(compose, 1)
    for number, size in enumerate(SIZES * 2):
        bits = derive_seed("sizes", number, 0, "")
        generators = numpy_generator(bits), python_random(bits)
        compose.set_random_state(*generators)
        result = compose(image=make_picture(number, *size), **targets)
        sampled = param_sampler.sample(bits, size, **targets)
        (call,) = sampled.calls
        assert sampled.size == result["image"].shape[:2]
        assert call.size == size
        assert_equal(call.params, transform.get_applied_params())
        assert_equal(sampled.generators[0].bit_generator.state, generators[0].bit_generator.state)
        assert sampled.generators[1].getstate() == generators[1].getstate()


def test_every_shape_function_is_for_a_tested_class() -> None:
    assert set(SHAPE_FUNCTIONS) <= {type(transform).__name__ for transform in instances()}


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        (A.Crop(x_max=90, y_max=20), (64, 80)),
        (A.RandomScale((-0.9, -0.9), p=1), (5, 80)),
        (A.Pad(-3), (64, 80)),
        (A.Erasing(p=1), (4, 200)),
        (A.RandomSizedCrop((1, 1), (20, 30), w2h_ratio=0.5), (64, 80)),
        (A.BBoxSafeRandomCrop(), (1, 1)),
        (A.RandomCrop(65, 20), (64, 80)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_albumentations_cannot_do_fails_while_sampling(transform: Any, size: tuple[int, int]) -> None:
    params = A.BboxParams("albumentations")
    targets = {"bboxes": np.array([[0.3, 0.3, 0.4, 0.4, 1]])}
    compose = A.Compose([transform], bbox_params=params)
    with pytest.raises(Exception, match=r".") as theirs:
        compose(image=make_picture(0, *size), **targets)
    assert not isinstance(theirs.value, AssertionError)
    with pytest.raises(
        (ValueError, A.augmentations.crops.transforms.CropSizeError), match=r"expected|exceeds"
    ):
        ParamSampler(compose, 1).sample(1, size, **targets)


def test_boxes_are_transformed_while_sampling() -> None:
    transforms = [A.HorizontalFlip(p=1), A.RandomScale((0.3, 0.6), p=1), A.BBoxSafeRandomCrop(p=1)]
    compose = A.Compose(transforms, bbox_params=A.BboxParams("albumentations"))
    param_sampler = ParamSampler(compose, 3)
    for number in range(4):
        bits = derive_seed("boxes", number, 0, "")
        compose.set_random_state(numpy_generator(bits), python_random(bits))
        result = compose(image=make_picture(number, 64, 80), bboxes=BOXES[:1])
        sampled = param_sampler.sample(bits, (64, 80), bboxes=BOXES[:1])
        assert sampled.size == result["image"].shape[:2]
        assert sampled.calls[2].params["crop_coords"] == transforms[2].get_applied_params()["crop_coords"]


@pytest.mark.parametrize(
    ("transform", "predictable"),
    [
        (A.OneOf([A.HorizontalFlip(), A.SomeOf([A.ColorJitter(), A.Affine()], n=1)]), True),
        (A.OneOf([A.HorizontalFlip(), A.ConstrainedCoarseDropout(mask_indices=[1])]), False),
        (A.Sequential([A.Equalize(mask=lambda image: image[..., 0])]), False),
        (A.SelectiveChannelTransform([A.HorizontalFlip()]), False),
    ],
    ids=["nested", "looks at masks", "looks at pixels", "looks at channels"],
)
def test_compositions_need_pixels_if_their_transforms_do(transform: Any, predictable: bool) -> None:
    assert (needs_pixels_reason(transform) == "") == predictable
