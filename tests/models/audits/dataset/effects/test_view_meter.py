"""What is measured of a view agrees with the pixels that the view yields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotated import drawn_scene, write_index
from lightwell.models.audits.dataset.effects.effect_stage import sampled_keys
from lightwell.models.audits.dataset.effects.view_meter import ViewMeter
from lightwell.pipeline.batch.annotations import AnnotationKinds
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.load.decode.decoder import decode_single
from lightwell.pipeline.load.decode.plan import DecodePlan, full_region
from lightwell.pipeline.load.loader import SampleLoader
from lightwell.pipeline.load.samples import ImageSample
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine

POLICIES: dict[str, list[dict[str, Any]]] = {
    "nothing": [],
    "center crop": [{"CenterCrop": {"height": 70, "width": 80}}],
    "enlarged crops": [{"RandomResizedCrop": {"size": [120, 120], "scale": [0.2, 0.6]}}],
    "flips and a crop": [
        {"HorizontalFlip": {"p": 1.0}},
        {"VerticalFlip": {"p": 1.0}},
        {"RandomCrop": {"height": 80, "width": 90}},
        {"Resize": {"height": 160, "width": 180}},
    ],
    "turned": [{"Affine": {"rotate": [20, 40], "scale": [1.2, 1.5], "p": 1.0}}],
    "a choice": [
        {
            "OneOf": {
                "transforms": [
                    {"CenterCrop": {"height": 60, "width": 60, "p": 1.0}},
                    {"Crop": {"x_max": 60, "y_max": 60, "p": 1.0}},
                ],
                "p": 1.0,
            }
        }
    ],
    "cut off, then padded": [
        {"CenterCrop": {"height": 70, "width": 80}},
        {"PadIfNeeded": {"min_height": 120, "min_width": 160}},
    ],
}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images with a red rectangle each, which is its box and its mask."""
    folder = tmp_path_factory.mktemp("scenes")
    return write_index(folder, [drawn_scene(f"{number}.png", number) for number in range(6)])


def measured(plan: Plan, view: int) -> list[dict[str, Any]]:
    """Return the rows of all images in one view."""
    index = plan.load_index()
    kinds = AnnotationKinds.of(index)
    meter = ViewMeter(Program.compile(plan), kinds, augment=view >= 0)
    loader = SampleLoader(index)
    rows = []
    for one in loader.load(np.arange(len(index))):
        assert one.file is not None
        decoded = decode_single(one.file, DecodePlan("full", full_region(one.file.size), ()))
        assert decoded.image is not None
        rows.append(meter.measure(ImageSample(one.row["key"], decoded.image, one.row, one.mask), view))
    loader.close()
    return rows


@pytest.mark.parametrize("name", POLICIES)
def test_the_share_of_an_object_that_is_kept_is_the_share_of_its_pixels_in_the_batch(
    index: Path, name: str
) -> None:
    plan = Plan(index=index, augment=POLICIES[name], batch={"size": 1})  # type: ignore[arg-type]
    with LocalEngine(num_threads=1).feed(plan, View(augment=True)) as feed:
        images = {batch.keys[0]: batch.images[0].numpy() for batch in feed}
    for row in measured(plan, 0):
        assert row["problem"] is None
        image = images[row["key"]]
        assert (row["height"], row["width"]) == image.shape[:2]
        is_red = (image[..., 0] > 160) & (image[..., 1] < 70)
        for one in row["objects"]:
            pixels = (one["side"] * row["enlargement"]) ** 2
            assert one["kept"] == pytest.approx(is_red.sum() / pixels, abs=0.08)
    assert len(images) == 6


def test_objects_are_boxes_with_their_class_and_labels_of_the_mask(index: Path) -> None:
    row = measured(Plan(index=index), -1)[0]
    assert [(one["number"], one["is_mask"], one["kept"]) for one in row["objects"]] == [
        (1, False, 1.0),
        (1, True, 1.0),
    ]
    assert row["objects"][0]["side"] == pytest.approx(row["objects"][1]["side"])
    assert (row["kept"], row["enlargement"], row["cropped_by"]) == (1.0, 1.0, None)


def test_pixels_that_only_color_steps_make_black_or_white_count_as_clipped_and_name_the_step(
    index: Path,
) -> None:
    lighter = {
        "RandomBrightnessContrast": {"brightness_limit": [0.5, 0.5], "contrast_limit": [0, 0], "p": 1.0}
    }
    black = {"PadIfNeeded": {"min_height": 240, "min_width": 160}}
    plain, changed = (
        measured(Plan(index=index, augment=steps), 0)[0]  # type: ignore[arg-type]
        for steps in ([black], [{"HorizontalFlip": {}}, lighter, black])
    )
    assert (plain["clipped"], plain["clipped_by"], plain["brightness_change"]) == (0.0, None, 0.0)
    assert changed["clipped_by"] == 1
    assert 0 < changed["clipped"] < 0.2
    assert changed["brightness_change"] == pytest.approx(0.5 * 0.5 * 255, abs=6)


def test_a_step_that_fails_and_float_images_are_rows_without_those_measures(index: Path) -> None:
    failing = {"Crop": {"x_max": 500, "y_max": 90}}
    row = measured(Plan(index=index, augment=[failing]), 0)[0]  # type: ignore[arg-type]
    assert "expected a crop inside 120x160 pixels" in row["problem"]
    assert row["kept"] is None
    early = [{"Normalize": {}}, {"CenterCrop": {"height": 60, "width": 160}}]
    row = measured(Plan(index=index, augment=early), 0)[0]  # type: ignore[arg-type]
    assert (row["clipped"], row["brightness"], row["kept"]) == (None, None, 0.5)


def test_a_large_dataset_is_sampled_by_the_seed_in_its_order() -> None:
    keys = [f"{number:05}" for number in range(3000)]
    chosen = sampled_keys(keys, 7)
    assert len(set(chosen)) == 2048
    assert list(chosen) == sorted(chosen)
    assert chosen == sampled_keys(keys, 7) != sampled_keys(keys, 8)
    assert sampled_keys(keys[:9], 7) == tuple(keys[:9])
