"""What DALI does not run is expected to fail: the day it works, its test says so, and its row of the table can go."""

from __future__ import annotations

import warnings
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from lightwell.pipeline.transform.dali.lowering import Device
from lightwell.pipeline.transform.dali.op_registry import OP_MODULES, lowering_of, unsupported_reason
from lightwell.pipeline.transform.dali.unsupported import ALBUMENTATIONS_ONLY, EXCEPTIONS
from lightwell.pipeline.transform.output_shapes import needs_pixels_reason
from snapshot import Snapshots
from transforms import made

from .parity import BOXES, compare, described, pictures

PICTURES = [picture for picture in pictures() if picture.size < 100_000]
NEAREST, CUBIC, AREA, LANCZOS = cv2.INTER_NEAREST, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4
INPAINTED = ("inpaint_telea", "inpaint_ns")
AREA_PAIR = {"downscale": AREA, "upscale": cv2.INTER_LINEAR}


def everywhere(image: np.ndarray) -> np.ndarray:
    """A mask of all pixels."""
    return np.ones(image.shape[:2], np.uint8)


def of(cls: Any, *arguments: Any, name: str, values: tuple[Any, ...], **options: Any) -> list[Any]:
    """Make a transform with each value of an option."""
    return [cls(*arguments, **{name: value}, **options) for value in values]


def filters(cls: Any, *arguments: Any, **options: Any) -> list[Any]:
    return of(cls, *arguments, name="interpolation", values=(NEAREST, AREA, CUBIC, LANCZOS), **options)


def warps(cls: Any, *arguments: Any, **options: Any) -> list[Any]:
    return of(cls, *arguments, name="interpolation", values=(NEAREST, CUBIC, LANCZOS), p=1, **options)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some classes warn of themselves
    REFUSED = (
        *warps(A.Affine, rotate=30),
        A.AutoContrast(cutoff=2, p=1),
        A.AutoContrast(ignore=7, p=1),
        A.CLAHE(clip_limit=(1, 4), p=1),
        *of(A.CoarseDropout, name="fill", values=INPAINTED, p=1),
        *warps(A.ChromaticAberration),
        A.ConstrainedCoarseDropout(mask_indices=[1], p=1),
        *of(A.ConstrainedCoarseDropout, name="fill", values=INPAINTED, bbox_labels=[1, 2], p=1),
        *filters(A.CropAndPad, px=9),
        A.Downscale((0.5, 0.5), AREA_PAIR, p=1),
        *warps(A.ElasticTransform, 300, 5),
        A.Equalize(mode="pil", p=1),
        A.Equalize(mask=everywhere, p=1),
        *of(A.Erasing, name="fill", values=INPAINTED, p=1),
        *warps(A.GridDistortion),
        *of(A.GridDropout, name="fill", values=INPAINTED, p=1),
        A.ImageCompression("webp", (50, 50), p=1),
        *filters(A.LongestMaxSize, 64),
        *warps(A.OpticalDistortion, (0.5, 0.5)),
        *warps(A.Perspective, (0.1, 0.2)),
        A.PiecewiseAffine((0, 0.1), p=1),
        *warps(A.PiecewiseAffine, (0.05, 0.1)),
        A.RandomBrightnessContrast(brightness_by_max=False, p=1),
        A.RandomGridShuffle((12, 12), p=1),
        *filters(A.RandomResizedCrop, (48, 56)),
        *filters(A.RandomScale, p=1),
        A.RandomShadow((0, 0, 1, 1), (8, 8), shadow_intensity_range=(0.2, 0.8), p=1),
        *filters(A.RandomSizedBBoxSafeCrop, 48, 56),
        *filters(A.RandomSizedCrop, (20, 30), (64, 40)),
        *filters(A.Resize, 48, 56),
        *warps(A.Rotate, (30, 40)),
        *warps(A.SafeRotate, (30, 40)),
        A.Sharpen(method="gaussian", p=1),
        *warps(A.ShiftScaleRotate, rotate_limit=(30, 40)),
        *filters(A.SmallestMaxSize, 64),
        A.SmallestMaxSize(64, area_for_downscale="image"),
        *warps(A.ThinPlateSpline, (0.9, 1)),
        A.ToGray(method="pca", p=1),
        A.ToGray(num_output_channels=1, p=1),
        *of(A.XYMasking, 1, 1, 9, 9, name="fill", values=INPAINTED, p=1),
    )
    """Options of the table ``EXCEPTIONS``."""
TOO_SLOW = (A.Morphological((9, 9), p=1),)
"""Options of that table that would work."""


def why_not(transform: Any) -> str:
    """Return the reason for which a transform does not run in DALI on a GPU, within one level."""
    return needs_pixels_reason(transform) or unsupported_reason(transform, device="gpu", approximate=False)


def expected_to_fail(transform: Any) -> Any:
    mark = pytest.mark.xfail(strict=True, reason=why_not(transform))
    return pytest.param(transform, marks=mark, id=described(transform))


def shown(transform: Any) -> str:
    return type(transform).__name__


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=f"{name} {reason}"))
    for name, reason in ALBUMENTATIONS_ONLY.items()
])  # fmt: skip
def test_the_class_is_lowered(name: str) -> None:
    assert lowering_of(name) is not None


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("transform", [expected_to_fail(transform) for transform in REFUSED])
def test_the_lowering_equals_albumentations_with_these_options(transform: Any, device: Device) -> None:
    assert_equal_in_dali(transform, device)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=lowering.gpu_only))
    for rules in OP_MODULES for lowering in rules.LOWERINGS for name in lowering.transforms if lowering.gpu_only
])  # fmt: skip
def test_what_is_lowered_for_a_gpu_only_runs_on_a_cpu(name: str) -> None:
    assert_equal_in_dali(made(name), "cpu")


def assert_equal_in_dali(transform: Any, device: Device) -> None:
    """Run the lowering whatever its reasons against these options, and compare."""
    assert needs_pixels_reason(transform) == ""
    lowering = lowering_of(shown(transform))
    assert lowering is not None
    found = compare(transform, PICTURES, device=device, num_draws=1)
    assert found.within(lowering.tolerance), f"expected {lowering.tolerance}, got {found}"


@pytest.mark.parametrize("transform", TOO_SLOW, ids=described)
def test_what_would_work_is_left_to_opencv_because_it_is_faster(transform: Any) -> None:
    assert "faster" in why_not(transform)
    assert_equal_in_dali(transform, "cpu")


@pytest.mark.parametrize("transform", REFUSED, ids=described)
def test_albumentations_runs_what_dali_does_not(transform: Any) -> None:
    """Otherwise the failures above would be expected for another reason than the one that is named."""
    assert why_not(transform)
    picture = PICTURES[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boxes = A.BboxParams("albumentations")
        compose = A.Compose([transform], bbox_params=boxes, is_check_shapes=False, seed=3)
        compose(image=picture, mask=np.ones(picture.shape[:2], np.uint8), bboxes=BOXES)


def test_the_reasons_are_those_that_are_kept(snapshots: Snapshots) -> None:
    lines = [f"{shown(one)}: {why_not(one)}\n" for one in (*REFUSED, *TOO_SLOW)]
    snapshots.check("unsupported/reasons", "".join(dict.fromkeys(lines)))
    snapshots.check_names("unsupported", {"reasons"})


def test_every_class_of_the_table_of_exceptions_is_tried() -> None:
    assert sorted({shown(transform) for transform in (*REFUSED, *TOO_SLOW)}) == sorted(EXCEPTIONS)
