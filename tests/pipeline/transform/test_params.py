"""Early sampling yields the same random numbers and pixels as Albumentations alone."""

from __future__ import annotations

import warnings
from typing import Any

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.compiler.routing import find_routes
from lightwell.pipeline.rng import derive_seed, numpy_generator, python_random
from lightwell.pipeline.transform.params import ParamSampler
from pictures import make_picture
from policies import leading_crops, policies

BOXES = np.array([[5, 8, 40, 50], [60, 20, 90, 80], [0, 0, 4, 4]], np.float32)
LOOKS_AT_PIXELS = A.HEStain


def compose(transforms: list[Any], *, boxes: bool = False) -> Any:
    targets = A.BboxParams(format="pascal_voc", label_fields=["box_rows"], clip=True) if boxes else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return A.Compose(transforms, bbox_params=targets)


def unchanged(image: np.ndarray, **_: Any) -> np.ndarray:
    return image


def num_sampled(pipeline: Any) -> int:
    return find_routes(pipeline.transforms, backend="opencv", device="cpu", approximate=False).num_sampled


def both_ways(pipeline: Any, image: np.ndarray, bits: int, **targets: Any) -> tuple[Any, Any, Any, Any]:
    """Results and generator states of Albumentations and of early sampling."""
    generator, rng = numpy_generator(bits), python_random(bits)
    pipeline.set_random_state(generator, rng)
    reference = pipeline(image=image, **targets)
    param_sampler = ParamSampler(pipeline, num_sampled(pipeline))
    sampled = param_sampler.sample(bits, image.shape[:2], **targets)
    found = param_sampler.finish(param_sampler.apply(image, sampled.calls), sampled)
    return (
        reference,
        (generator.random(), rng.random()),
        found,
        (sampled.generators[0].random(), sampled.generators[1].random()),
    )


@settings(max_examples=150, deadline=None)
@given(start=leading_crops(), rest=policies(), number=st.integers(0, 10**6))
def test_any_policy_gives_the_same_pixels_and_generator_states(
    start: list[Any], rest: list[Any], number: int
) -> None:
    image = make_picture(number % 7, 120, 160)
    reference, after, found, after_ours = both_ways(
        compose([*start, *rest]), image, derive_seed("test", number, 0, "")
    )
    assert np.array_equal(found["image"], reference["image"])
    assert after_ours == after


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")  # Albumentations, of empty boxes
@settings(max_examples=60, deadline=None)
@given(rest=policies(), number=st.integers(0, 10**6))
def test_masks_and_boxes_follow_as_in_albumentations(rest: list[Any], number: int) -> None:
    image = make_picture(number % 7, 120, 160)
    mask = (image[..., 0] > 128).astype(np.uint8)
    pipeline = compose([A.RandomCrop(100, 110), *rest], boxes=True)
    targets = {"mask": mask, "bboxes": BOXES, "box_rows": np.arange(len(BOXES))}
    reference, after, found, after_ours = both_ways(
        pipeline, image, derive_seed("test", number, 0, ""), **targets
    )
    assert np.array_equal(found["image"], reference["image"])
    assert np.array_equal(found["mask"], reference["mask"])
    np.testing.assert_array_equal(found["bboxes"], reference["bboxes"])
    np.testing.assert_array_equal(found["box_rows"], reference["box_rows"])
    assert after_ours == after


def test_remaining_transforms_continue_with_the_same_generators() -> None:
    pipeline = compose(
        [A.RandomResizedCrop((40, 48)), LOOKS_AT_PIXELS(p=1), A.GaussNoise(p=1), A.RandomCrop(20, 20)]
    )
    assert num_sampled(pipeline) == 1
    for number in range(5):
        reference, after, found, after_ours = both_ways(pipeline, make_picture(number), number)
        assert np.array_equal(found["image"], reference["image"])
        assert after_ours == after


def test_boxes_determine_a_safe_crop() -> None:
    pipeline = compose([A.HorizontalFlip(p=1), A.BBoxSafeRandomCrop(p=1)], boxes=True)
    assert num_sampled(pipeline) == 2
    targets = {"bboxes": BOXES[:2], "box_rows": np.arange(2)}
    reference, _, found, _ = both_ways(pipeline, make_picture(2, 120, 160), 9, **targets)
    assert np.array_equal(found["image"], reference["image"])
    assert len(found["bboxes"]) == 2


def test_sampling_takes_no_memory_for_pixels() -> None:
    param_sampler = ParamSampler(compose([A.RandomResizedCrop((224, 224)), A.HorizontalFlip()]), 2)
    sampled = param_sampler.sample(1, (100_000, 100_000))  # 30 GB of pixels
    assert sampled.size == (224, 224)


@pytest.mark.parametrize(
    ("transforms", "sampled", "why"),
    [
        ([A.HorizontalFlip(), A.HEStain(), A.VerticalFlip()], 1, "HEStain computes parameters from pixels"),
        ([A.Lambda(image=unchanged)], 0, "Lambda does not yield a uint8 RGB image"),
        ([A.OneOf([A.Blur(), A.MaskDropout((1, 1))])], 0, "MaskDropout computes parameters from pixels"),
        ([A.SelectiveChannelTransform([A.Blur()])], 0, "selects transforms by pixels"),
        ([A.ToGray(num_output_channels=1)], 0, "ToGray does not yield a uint8 RGB image"),
    ],
)
def test_sampling_stops_where_params_depend_on_pixels_with_a_reason(
    transforms: list[Any], sampled: int, why: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        routes = find_routes(transforms, backend="opencv", device="cpu", approximate=False)
    assert routes.num_sampled == sampled
    assert why in routes.routes[sampled].reason
    assert [route.reason for route in routes.routes[sampled + 1 :]] == [
        f"after {type(transforms[sampled]).__name__}" for _ in transforms[sampled + 1 :]
    ]


SILENT_BEGINNINGS = (
    [A.SmallestMaxSize(96)],
    [A.Resize(80, 100)],
    [A.LongestMaxSize(128), A.CenterCrop(64, 64)],
    [A.Crop(4, 6, 90, 100), A.SmallestMaxSize(70, p=1.0)],
)


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from(SILENT_BEGINNINGS), rest=policies(), number=st.integers(0, 10**6))
def test_deterministic_transforms_can_be_skipped_without_changing_the_rest(
    start: list[Any], rest: list[Any], number: int
) -> None:
    pipeline = compose([*start, *rest])
    param_sampler = ParamSampler(pipeline, num_sampled(pipeline))
    assert param_sampler.is_deterministic(len(start))
    whole = param_sampler.sample(number, (120, 160))
    after_whole = [generator.random() for generator in whole.generators]
    behind = [one for one in whole.calls if one.transform_index >= len(start)]
    begun = ParamSampler(compose(start), len(start)).sample(number, (120, 160)).size
    rest_only = param_sampler.sample(number, begun, num_skipped=len(start))
    assert repr(rest_only.calls) == repr(tuple(behind))
    assert rest_only.size == whole.size
    assert [generator.random() for generator in rest_only.generators] == after_whole


@pytest.mark.parametrize(
    "first",
    [A.Resize(80, 100, p=0.5), A.RandomCrop(40, 40), A.OneOf([A.Resize(80, 100)]), A.HorizontalFlip(p=1)],
)
def test_random_transforms_are_never_skipped(first: Any) -> None:
    param_sampler = ParamSampler(compose([A.SmallestMaxSize(96), first]), 2)
    assert param_sampler.is_deterministic(1)
    assert not param_sampler.is_deterministic(2)
