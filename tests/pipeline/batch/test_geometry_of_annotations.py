"""Masks, boxes and keypoints get the same geometric transforms as the pixels, on every backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
from annotated import drawn_scene, plain_scene, read, write_index
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.policy.registry import transform_classes
from lightwell.pipeline.warning_filter import ignored_warnings
from transforms import NEEDED, USABLE

JPEG = {"quality": 100, "subsampling": 0}
GEOMETRY = [
    A.RandomResizedCrop((60, 70), scale=(0.3, 1)),
    A.Affine(rotate=(-30, 30), scale=(0.7, 1.3), p=0.8),
    A.HorizontalFlip(),
    A.Perspective(p=0.5),
    A.RandomRotate90(),
    A.Resize(64, 64),
]


@pytest.mark.parametrize("remove_invisible", [False, True])
def test_keypoints_move_as_in_plain_albumentations(tmp_path: Path, remove_invisible: bool) -> None:
    points = [[5, 5, 2], [40, 30, 1], [25, 20, 0], [45, 35, 2]]
    path = write_index(tmp_path, [plain_scene("0.png", keypoints=points)], keypoint_names=tuple("abcd"))
    view = View(augment=True, num_epochs=12)
    plan = {"keypoint_params": {"remove_invisible": remove_invisible}}
    batches, bad = read(path, view, augment=GEOMETRY, **plan)
    assert not bad
    ways, _ = read(path, view, backend="dali", augment=GEOMETRY, **plan)
    seen = set()
    for batch, other in zip(batches, ways, strict=True):
        assert batch.keypoints is not None
        assert other.keypoints is not None
        found = batch.keypoints[0][0]
        assert np.array_equal(found, other.keypoints[0][0])
        expected = plain_keypoints(path, batch.epoch, points, remove_invisible=remove_invisible)
        inside = ((expected >= 0) & (expected < 64)).all(axis=1)
        visibility = np.where(inside, [2, 1, 0, 2], 0)
        assert np.array_equal(found[:, 2], visibility)
        if not remove_invisible:
            assert np.allclose(found[:, :2], expected, atol=1e-3)
        else:
            assert np.allclose(found[inside, :2], expected[inside], atol=1e-3)
            assert not found[~inside].any()
        seen |= set(inside.tolist())
    assert seen == {True, False}


def plain_keypoints(path: Path, epoch: int, points: Any, *, remove_invisible: bool) -> np.ndarray:
    """Run the policy in plain Albumentations; removed points are -1, -1."""
    from lightwell.pipeline.compiler.program import Program
    from lightwell.pipeline.rng import derive_seed, numpy_generator, python_random

    compose = A.Compose(
        Program.compile(Plan(index=path, augment=GEOMETRY)).compose(augment=True).transforms,
        keypoint_params=A.KeypointParams("xy", label_fields=["rows"], remove_invisible=remove_invisible),
    )
    bits = derive_seed("augment", 0, epoch, "0.png")
    compose.set_random_state(numpy_generator(bits), python_random(bits))
    done = compose(
        image=np.zeros((40, 50, 3), np.uint8),
        keypoints=np.array(points, np.float32)[:, :2],
        rows=np.arange(len(points)),
    )
    found = np.full((len(points), 2), -1.0)
    found[np.asarray(done["rows"], int)] = done["keypoints"]
    return found


def test_a_keypoint_that_left_the_image_stays_invisible_after_padding(
    tmp_path: Path,
) -> None:
    points = [[5, 5, 2], [25, 20, 2], [-3, 20, 2]]
    path = write_index(tmp_path, [plain_scene("0.png", keypoints=points)], keypoint_names=tuple("abc"))
    ((batch,), _) = read(path, preprocess=[A.Crop(10, 10, 50, 40), A.Pad(padding=20)])
    assert batch.keypoints is not None
    assert batch.keypoints[0][0].tolist() == [[15, 15, 0], [35, 30, 2], [7, 30, 0]]


POLICIES: dict[str, list[Any]] = {
    "flips and turns": [A.D4(p=1), A.Resize(96, 96)],
    "crops": [A.RandomResizedCrop((96, 112), scale=(0.4, 1)), A.HorizontalFlip()],
    "affine": [A.Affine(rotate=(-40, 40), translate_percent=(-0.1, 0.1), p=1), A.Resize(100, 100)],
    "perspective": [A.Perspective(p=1), A.Transpose(), A.PadIfNeeded(170, 170), A.Resize(120, 120)],
    "cropped by pixels": [A.CropAndPad(percent=(-0.1, 0.1)), A.RandomCrop(90, 90), A.VerticalFlip()],
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of all orientations, as PNG and JPEG, with their annotations drawn into them."""
    folder = tmp_path_factory.mktemp("drawn")
    scenes = [drawn_scene(f"{o}.png", o, orientation=o) for o in range(1, 9)]
    for o in range(1, 9):
        scenes.append(drawn_scene(f"{o}.jpg", 10 + o, orientation=o))
        scenes[-1].options = JPEG
    return write_index(folder, scenes)


def assert_together(batch: Batch) -> int:
    """Locate the annotations in the pixels; return how many were found."""
    assert batch.masks is not None
    assert batch.boxes is not None
    assert batch.keypoints is not None
    found = 0
    for row, key in enumerate(batch.keys):
        image = batch.images[row].numpy().astype(int)
        red = image[..., 0] - image[..., 1] > 105  # half of what it is inside
        mask = (batch.masks[row].numpy() == 1).astype(np.uint8)
        labelled = mask.astype(bool)
        near = np.ones((5, 5), np.uint8)
        if labelled.sum() > 150:
            assert red[cv2.erode(mask, near, borderValue=0) > 0].all(), key
            assert (cv2.dilate(mask, near)[red] > 0).all(), key
            (x0, y0, x1, y1) = batch.boxes[row][0]
            ys, xs = np.nonzero(red)
            assert x0 - 2 <= xs.min(), key
            assert xs.max() <= x1 + 2, key
            assert y0 - 2 <= ys.min(), key
            assert ys.max() <= y1 + 2, key
            found += 1
        for x, y, visibility in batch.keypoints[row].reshape(-1, 3):
            if visibility and 6 <= x < image.shape[1] - 6 and 6 <= y < image.shape[0] - 6:
                red_, green, blue = image[round(float(y)), round(float(x))]
                assert green > 140, (key, x, y)
                assert max(red_, blue) < 110, (key, x, y)
                found += 1
    return found


@pytest.mark.parametrize("way", ["opencv", "dali", "cached"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_annotations_stay_aligned_with_pixels(
    drawn: Path, tmp_path: Path, policy: list[Any], way: str
) -> None:
    plan: dict[str, Any] = {"augment": policy, "batch": {"size": 16}}
    if way == "cached":
        plan |= {"cache": tmp_path / "cache", "preprocess": [A.SmallestMaxSize(100)]}
    view = View(augment=True, shuffle=True, num_epochs=2)
    batches, bad = read(drawn, view, "dali" if way == "dali" else "opencv", **plan)
    assert not bad
    assert sum(map(assert_together, batches)) > 20


NOT_TESTED = frozenset(
    {
        *("CoarseDropout", "ConstrainedCoarseDropout", "Erasing", "FrequencyMasking", "GridDropout"),
        *("MaskDropout", "PixelDropout", "TimeMasking", "XYMasking"),
        *("AtLeastOneBBoxRandomCrop", "BBoxSafeRandomCrop", "RandomSizedBBoxSafeCrop"),
    }
)
"""Transforms that paint over the picture and leave its mask as it is, and those that do nothing without boxes."""
OPTIONS: dict[str, dict[str, Any]] = {
    "Crop": {"x_min": 8, "y_min": 4, "x_max": 150, "y_max": 110},
    "CropAndPad": {"percent": (-0.1, 0.1)},
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 6},
    "PiecewiseAffine": {"nb_rows": 3, "nb_cols": 3},
    "PadIfNeeded": {"min_height": 170, "min_width": 190},
    "RandomSizedCrop": {"min_max_height": (60, 100), "size": (96, 96)},
}
LARGE: dict[str, Any] = {"height": 96, "width": 104, "size": (96, 104), "max_size": 128}
SPATIAL = sorted(
    name
    for name, cls in transform_classes().items()
    if name in USABLE and issubclass(cls, A.DualTransform) and name not in NOT_TESTED
)


@pytest.mark.parametrize("name", SPATIAL)
def test_masks_stay_aligned_with_pixels_under_every_spatial_transform(masked: Path, name: str) -> None:
    """Red pixels are those of label 1, up to the width of the interpolation at the edge."""
    sizes = {"height", "width", "size", "max_size"} & NEEDED.get(name, {}).keys()
    options = OPTIONS.get(name) or {key: LARGE[key] for key in sizes}
    with ignored_warnings():  # that some are aliases, or slow
        policy = [getattr(A, name)(**options, p=1), A.Resize(120, 140)]
    batches, bad = read(masked, View(augment=True), "opencv", augment=policy, batch={"size": 4})
    assert not bad
    num_inside = 0
    for batch in batches:
        assert batch.masks is not None
        for image, labels in zip(batch.images.numpy().astype(int), batch.masks.numpy(), strict=True):
            red = (image[..., 0] - image[..., 1] > 105).astype(np.uint8)
            mask = (labels == 1).astype(np.uint8)
            near = np.ones((7, 7), np.uint8)
            assert red[cv2.erode(mask, near, borderValue=0) > 0].all()
            assert mask[cv2.erode(red, near, borderValue=0) > 0].all()
            num_inside += int(cv2.erode(mask, near, borderValue=0).sum())
    assert num_inside > 200


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures with a mask alone, as some transforms support no boxes or keypoints."""
    scenes = [drawn_scene(f"{number}.png", number) for number in range(4)]
    for scene in scenes:
        scene.boxes = scene.box_labels = scene.keypoints = None
    return write_index(tmp_path_factory.mktemp("masked"), scenes)
