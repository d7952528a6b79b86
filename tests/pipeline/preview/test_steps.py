"""What a page says of each step is what was done to the pixels."""

from __future__ import annotations

from pathlib import Path

import albumentations as A
import cv2
import numpy as np
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.preview.preview import preview
from pictures import make_picture, write_picture


def test_steps_say_what_was_done_and_what_was_skipped(index_path: Path) -> None:
    plan = Plan(index=index_path, augment=[A.HorizontalFlip(p=0.5), A.InvertImg(p=0.4)])
    seen = set()
    for sample in preview(plan, samples=8, versions=4).samples:
        assert sample.original is not None
        for version in sample.versions[:-1]:
            assert version.picture is not None
            flip, invert = version.steps
            pixels = sample.original.pixels[:, ::-1] if flip.applied else sample.original.pixels
            np.testing.assert_array_equal(version.picture.pixels, 255 - pixels if invert.applied else pixels)
            assert (flip.name, flip.p, invert.name, invert.p) == ("HorizontalFlip", 0.5, "InvertImg", 0.4)
            seen.add((flip.applied, invert.applied))
    assert len(seen) == 4


def test_steps_name_what_a_choice_chose_and_what_ran_on_pixels(index_path: Path) -> None:
    choice = A.OneOf([A.HorizontalFlip(p=1), A.Sequential([A.VerticalFlip(p=1)], p=1)], p=0.7)
    plan = Plan(index=index_path, augment=[A.HEStain(p=0.5), choice])
    seen = set()
    for sample in preview(plan, samples=20, versions=4).samples:
        assert sample.original is not None
        for version in sample.versions[:-1]:
            assert version.picture is not None
            stain, chosen = version.steps
            names = [one.name for one in chosen.inner]
            turned = {(): slice(None), ("HorizontalFlip",): np.s_[:, ::-1], ("VerticalFlip",): np.s_[::-1]}
            wanted = sample.original.pixels[turned[tuple(names)]]
            assert np.array_equal(version.picture.pixels, wanted) != stain.applied
            assert chosen.applied == bool(names)
            seen.add((stain.applied, *names))
    assert len(seen) == 6


def test_the_way_a_picture_is_turned_is_named_as_it_looks(tmp_path: Path) -> None:
    image = np.zeros((101, 101, 3), np.uint8)
    cv2.circle(image, (85, 50), 8, (255, 255, 255), -1)  # on the right
    write_picture(tmp_path / "photos" / "a" / "spot.png", image)
    build_index(tmp_path / "photos", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    for low, high in ((-60, -20), (20, 60)):
        turns = (
            A.Rotate((low, high), p=1),
            A.Affine(rotate=(low, high), p=1),
            A.SafeRotate((low, high), p=1),
        )
        for turn in turns:
            plan = Plan(index=tmp_path / "index.parquet", augment=[turn])
            (version, _) = preview(plan, versions=1).samples[0].versions
            assert version.picture is not None
            is_up = np.nonzero(version.picture.pixels[..., 0] > 100)[0].mean() < version.picture.size[0] / 2
            assert is_up == (low > 0)
            assert ("counter-clockwise" in version.steps[0].words) == is_up
    plan = Plan(index=tmp_path / "index.parquet", augment=[A.RandomRotate90(p=1)])
    quarters = [one for one in preview(plan, versions=10).samples[0].versions if one.steps[:1]]
    places = {"0°": "right", "90°": "top", "180°": "left", "270°": "bottom"}
    assert {one.steps[0].words.split()[0] for one in quarters} == set(places)
    for one in quarters:
        assert one.picture is not None
        y, x = (axis.mean() / 101 - 0.5 for axis in np.nonzero(one.picture.pixels[..., 0] > 100))
        where = ("left" if x < 0 else "right") if abs(x) > abs(y) else ("top" if y < 0 else "bottom")
        assert where == places[one.steps[0].words.split()[0]]


def test_a_crop_is_named_by_its_place_and_share(tmp_path: Path) -> None:
    image = make_picture(0, 100, 200)
    write_picture(tmp_path / "photos" / "a" / "a.png", image)
    build_index(tmp_path / "photos", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    plan = Plan(
        index=tmp_path / "index.parquet",
        augment=[A.RandomResizedCrop((40, 60), scale=(0.2, 0.2), ratio=(1.0, 1.0))],
        evaluate=[A.Crop(10, 20, 110, 70)],
    )
    (sample,) = preview(plan, versions=1).samples
    training_step, evaluation_step = (version.steps[0] for version in sample.versions)
    assert training_step.words.startswith("20 % of the area at (")
    assert training_step.words.endswith("), to 60x40")
    assert evaluation_step.words == "100x50 at (10, 20)"
