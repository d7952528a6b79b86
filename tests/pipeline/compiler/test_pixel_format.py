"""Every batch has one pixel format: bytes or floats, and one number of channels."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.compiler.pixel_format import PixelFormat, output_pixel_format
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.policy.registry import UNSUPPORTED, is_composition_class, transform_classes
from lightwell.pipeline.runtime.local_engine import LocalEngine

NEEDED: dict[str, dict[str, Any]] = {
    "CenterCrop": {"height": 32, "width": 32},
    "Crop": {"x_max": 32, "y_max": 32},
    "CropAndPad": {"px": 3},
    "GridElasticDeform": {"num_grid_xy": (3, 3), "magnitude": 3},
    "LongestMaxSize": {"max_size": 32},
    "RandomCrop": {"height": 32, "width": 32},
    "RandomResizedCrop": {"size": (32, 32)},
    "RandomSizedCrop": {"min_max_height": (20, 32), "size": (32, 32)},
    "Resize": {"height": 32, "width": 32},
    "SmallestMaxSize": {"max_size": 32},
}
NEED_ANNOTATIONS = {
    "AtLeastOneBBoxRandomCrop",
    "BBoxSafeRandomCrop",
    "CropNonEmptyMaskIfExists",
    "MaskDropout",
    "RandomSizedBBoxSafeCrop",
}
TENSORS = {"ToTensor3D", "ToTensorV2"}
FROM_FLOATS = {"FromFloat"}


def kind_of(image: np.ndarray) -> PixelFormat:
    return PixelFormat(image.dtype != np.uint8, 1 if image.ndim == 2 else image.shape[2])


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, cls in transform_classes().items()
        if not is_composition_class(cls)
        and name not in UNSUPPORTED.keys() | NEED_ANNOTATIONS | TENSORS | FROM_FLOATS
    ),
)
@pytest.mark.filterwarnings("ignore")
def test_the_pixel_format_of_each_transform_equals_albumentations(name: str) -> None:
    transform = transform_classes()[name](**NEEDED.get(name, {}), p=1.0)
    image = np.random.default_rng(3).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    made = A.Compose([transform])(image=image)["image"]
    assert output_pixel_format([transform], "augment") == kind_of(made)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (
            [A.Normalize(p=0.5)],
            r"Normalize: expected one pixel format .* bytes of 3 channels or floats of 3 channels",
        ),
        ([A.ToFloat(p=0.5)], "ToFloat: expected one pixel format"),
        ([A.OneOf([A.ToFloat(), A.NoOp()], p=1)], "OneOf: expected one pixel format"),
        ([A.OneOf([A.ToFloat(), A.Normalize()], p=0.5)], "OneOf: expected one pixel format"),
        ([A.SomeOf([A.ToFloat(), A.HorizontalFlip()], n=1)], "SomeOf: expected one pixel format"),
        ([A.Sequential([A.Normalize()], p=0.5)], "Sequential: expected one pixel format"),
        ([A.ToGray(num_output_channels=1, p=0.5)], "bytes of 1 channel or bytes of 3 channels"),
        ([A.FromFloat()], "FromFloat: expected floats before it, got bytes of 3 channels"),
        ([A.SelectiveChannelTransform([A.ToFloat()])], "written back into the image"),
        ([A.OneOf([A.ToTensorV2(), A.NoOp()], p=1)], "ToTensorV2: expected only at the end"),
    ],
)
def test_a_random_pixel_format_is_rejected_when_the_plan_is_compiled(policy: list[Any], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        Program.compile(Plan(index="i", augment=policy))


@pytest.mark.parametrize(
    ("policy", "kind"),
    [
        ([A.OneOf([A.ToFloat(), A.Normalize(p=0.2)], p=1)], PixelFormat(is_float=True)),
        ([A.ToFloat(p=0.5), A.Normalize()], PixelFormat(is_float=True)),
        ([A.ToFloat(), A.HorizontalFlip(), A.FromFloat()], PixelFormat()),
        ([A.ToGray(num_output_channels=1, p=1), A.ToRGB(p=1)], PixelFormat()),
        ([A.SomeOf([A.ToFloat(), A.Normalize()], n=2)], PixelFormat(is_float=True)),
        ([A.ToGray(num_output_channels=4, p=1)], PixelFormat(channels=4)),
    ],
)
def test_a_constant_pixel_format_is_accepted(policy: list[Any], kind: PixelFormat) -> None:
    assert output_pixel_format(policy, "augment") == kind


def kinds_policy() -> st.SearchStrategy[list[Any]]:
    p = st.sampled_from([0.5, 1.0])
    leaf = st.one_of(
        st.builds(A.ToFloat, max_value=st.just(255.0), p=p),
        st.builds(A.Normalize, p=p),
        st.builds(A.HorizontalFlip, p=p),
        st.builds(A.ToGray, num_output_channels=st.sampled_from([1, 3]), p=p),
        st.builds(A.NoOp, p=p),
    )
    nested = st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(A.OneOf, st.lists(inner, min_size=1, max_size=3), p=p),
            st.builds(A.Sequential, st.lists(inner, max_size=3), p=p),
            st.builds(A.SomeOf, st.lists(inner, min_size=1, max_size=3), n=st.just(1), p=p),
        ),
        max_leaves=5,
    )
    return st.lists(nested, max_size=3)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None)
@given(policy=kinds_policy())
def test_accepted_policies_yield_the_inferred_pixel_format(policy: list[Any]) -> None:
    image = np.full((8, 8, 3), 77, np.uint8)
    pipeline = A.Compose(policy, seed=5)
    made = set()
    for _ in range(12):
        try:
            made.add(kind_of(pipeline(image=image)["image"]))
        except (TypeError, ValueError):  # ToGray after ToGray, of one channel
            return
    try:
        kind = output_pixel_format(policy, "augment")
    except PlanError:
        return
    assert made == {kind}


def plan_of(folder: Path, **keys: Any) -> Plan:
    (folder / "photos").mkdir()
    for number in range(4):
        picture = np.full((16, 24, 3), 40 * number + 20, np.uint8)
        cv2.imwrite(str(folder / "photos" / f"{number}.png"), picture)
    build_index(folder / "photos").save(folder / "index.parquet")
    return Plan(index=folder / "index.parquet", batch={"size": 4}, **keys)


def first_batch(plan: Plan, **view: Any) -> torch.Tensor:
    with LocalEngine(num_threads=1).feed(plan, View(**view)) as feed:
        return next(iter(feed)).images


@pytest.mark.parametrize("cached", [False, True])
def test_one_channel_keeps_its_axis(cached: bool, tmp_path: Path) -> None:
    gray = {"ToGray": {"num_output_channels": 1, "p": 1.0}}
    keys = {"cache": {"dir": str(tmp_path / "cache")}} if cached else {}
    images = first_batch(plan_of(tmp_path, preprocess=[gray], **keys))
    assert images.dtype == torch.uint8
    assert images.shape == (4, 16, 24, 1)
    assert images[:, 0, 0, 0].tolist() == [20, 60, 100, 140]


@pytest.mark.parametrize("constants", [[0.5], 0.5])
def test_one_channel_is_normalized_with_its_own_constants(constants: Any, tmp_path: Path) -> None:
    gray = {"ToGray": {"num_output_channels": 1, "p": 1.0}}
    plan = plan_of(tmp_path, preprocess=[gray, {"Normalize": {"mean": constants, "std": constants}}])
    images = first_batch(plan)
    assert images.shape == (4, 1, 16, 24)
    expected = (np.array([20, 60, 100, 140]) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(images[:, 0, 0, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("number", [2, 4])
def test_constants_for_another_number_of_channels_are_rejected(number: int) -> None:
    constants = [0.5] * number
    with pytest.raises(PlanError, match=f"Normalize: expected a mean and std for 3 channels.*got {number}"):
        Program.compile(Plan(index="i", preprocess=[{"Normalize": {"mean": constants, "std": constants}}]))
    plan = Plan(index="i", preprocess=[A.Normalize()], augment=[A.ToGray(num_output_channels=1, p=1)])
    with pytest.raises(PlanError, match=r"1 channel.*got 3"):
        Program.compile(plan)


class SometimesFloats(A.ImageOnlyTransform):
    """A custom transform, whose output format is unknown to the plan."""

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        return img.astype(np.float32) / 255 if img[0, 0, 0] > 70 else img


def test_floats_of_a_custom_class_are_never_written_as_bytes(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = plan_of(tmp_path, augment=[SometimesFloats(p=1)])
    with pytest.raises(PlanError, match="expected one dtype in a batch"):
        first_batch(plan, augment=True)


def test_means_and_stds_of_different_lengths_are_rejected() -> None:
    plan = Plan(index="i", preprocess=[{"Normalize": {"mean": [0.5, 0.5], "std": [0.5, 0.5, 0.5]}}])
    with pytest.raises(PlanError, match="expected as many means as stds, got 2 and 3"):
        Program.compile(plan)
