"""Every example runs and matches the description in its first line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine

EXAMPLES = Path(__file__).parents[2] / "pipeline" / "examples"


def first_batch(name: str, index_path: Path, *, augment: bool) -> Batch:
    content = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())
    plan = Plan.model_validate({**content, "index": index_path})
    with LocalEngine(num_threads=2).feed(plan, View(augment=augment)) as feed:
        return next(iter(feed))


PREPROCESS: dict[str, Callable[[Batch], bool]] = {
    "resize": lambda b: b.images.shape[1:] == (224, 224, 3),
    "crop": lambda b: b.images.shape[1:] == (96, 128, 3),
    "gray": lambda b: bool((b.images[..., 0] == b.images[..., 1]).all()),
    "hsv": lambda b: int(b.images[..., 0].max()) <= 179,
    "denoise": lambda b: b.images.shape[1:] == (96, 96, 3),
    "equalize": lambda b: int(b.images.min()) < 5 and int(b.images.max()) > 250,
    "normalize": lambda b: (
        b.images.dtype == torch.float32 and b.images.shape[1] == 3 and float(b.images.min()) < 0
    ),
}
AUGMENT = (
    "rotate",
    "random_crop",
    "flip",
    "zoom",
    "color",
    "noise",
    "distortion",
    "erasing",
    "mixup",
    "cutmix",
)


def test_every_example_file_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == {*PREPROCESS, *AUGMENT}


@pytest.mark.parametrize("name", sorted(PREPROCESS))
def test_preprocess_example_matches_its_description(name: str, index_path: Path) -> None:
    assert PREPROCESS[name](first_batch(name, index_path, augment=False))


@pytest.mark.parametrize("name", AUGMENT)
def test_augment_example_changes_pictures_only_in_training_views(name: str, index_path: Path) -> None:
    plain, other = (first_batch(name, index_path, augment=False) for _ in range(2))
    augmented = first_batch(name, index_path, augment=True)
    assert torch.equal(plain.images, other.images)
    assert plain.images.shape != augmented.images.shape or not torch.equal(plain.images, augmented.images)


def test_denoise_example_removes_a_lone_pixel(tmp_path: Path) -> None:
    from lightwell.pipeline.compiler.program import Program

    plan = Plan.load(EXAMPLES / "denoise.yaml")
    picture = np.full((96, 96, 3), 100, np.uint8)
    picture[40, 40] = 255
    assert (Program.compile(plan).compose(augment=False)(image=picture)["image"] == 100).all()


def test_hsv_example_equals_opencv(index_path: Path) -> None:
    batch = first_batch("hsv", index_path, augment=False)
    rows = {row["key"]: row for row in Index.load(index_path).table.to_pylist()}
    image = cv2.imread(rows[batch.keys[0]]["uri"])[..., ::-1]
    expected = cv2.cvtColor(cv2.resize(image, (96, 96), interpolation=cv2.INTER_LINEAR), cv2.COLOR_RGB2HSV)
    assert np.array_equal(batch.images[0].numpy(), expected)


def test_mixup_blends_pixels_and_labels_with_the_same_weight(index_path: Path) -> None:
    plain, mixed = (first_batch("mixup", index_path, augment=flag) for flag in (False, True))
    assert mixed.mixed_weights is not None
    assert mixed.mixed_labels is not None
    share = 1 - mixed.mixed_weights[0].item()
    expected = plain.images.float() * share + plain.images.roll(1, 0).float() * (1 - share)
    assert torch.allclose(mixed.images.float(), expected, atol=0.51)
    assert torch.equal(mixed.mixed_labels, plain.labels.roll(1))


def test_cutmix_weights_equal_the_pasted_area(index_path: Path) -> None:
    plain, mixed = (first_batch("cutmix", index_path, augment=flag) for flag in (False, True))
    assert mixed.mixed_weights is not None
    differs = (mixed.images != plain.images).any(dim=3)
    area = differs.float().mean(dim=(1, 2))
    assert (area <= mixed.mixed_weights + 1e-6).all()
    assert torch.allclose(area, mixed.mixed_weights, atol=0.05)
