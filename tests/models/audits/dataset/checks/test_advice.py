"""The YAML of advice opens, and the steps that it advises remove what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lightwell.models.audits.dataset.checks.all_checks import run_checks
from lightwell.models.audits.dataset.checks.class_balance import find_class_balance
from lightwell.models.audits.dataset.checks.drift import find_drift
from lightwell.models.audits.dataset.checks.predictive_properties import AUGMENTATIONS
from lightwell.models.audits.dataset.checks.preprocessing import find_preprocessing
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.findings.finding import Finding
from lightwell.models.training.job import Classify
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.config.checked_model import build_checked
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.statistics.image_measures import image_measures

from .made_tables import make_pictures, make_table

NUM = 24


def opened(text: str) -> Plan | None:
    """Open the YAML of advice: sections of a plan, which is returned compiled, or keys of a training job."""
    content = yaml.safe_load(text)
    if content.keys() <= {"preprocess", "augment", "evaluate"}:
        plan = Plan.model_validate({"index": "none.parquet", **content})
        Program.compile(plan)
        return plan
    values = {"plan": Plan(index=Path("none.parquet")), "model": {"name": "resnet18"}, **content}
    build_checked(Classify, values, where="advice", folder=Path())
    return None


def measured(pictures: list[np.ndarray], **fields: Any) -> DatasetTable:
    """Make a table of the measures of pictures."""
    rows = [image_measures(picture) for picture in pictures]
    images = {name: np.array([row[name] for row in rows], np.float64) for name in NAMES}
    shapes = np.array([picture.shape[:2] for picture in pictures], np.float64)
    files = {"height": shapes[:, 0], "width": shapes[:, 1]}
    return make_table(len(pictures), **{"images": images, "files": files, **fields})


NAMES = (
    "border_vertical", "border_horizontal", "brightness_p1", "brightness_p99", "noise", "mean_r", "mean_g", "mean_b", "std_r",
    "std_g", "std_b", "brightness", "contrast",
)  # fmt: skip


def photos() -> list[np.ndarray]:
    """Make pictures with full levels, without noise and borders."""
    return [np.asarray(one) for one in make_pictures(np.random.default_rng(0), NUM)]


def letterboxed(picture: np.ndarray) -> np.ndarray:
    return np.pad(picture, ((12, 12), (0, 0), (0, 0)))


def faded(picture: np.ndarray) -> np.ndarray:
    return (picture * 0.25 + 90).astype(np.uint8)


def noisy(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(picture.sum())).normal(0, 25, picture.shape[:2])
    return np.clip(picture + noise[..., None], 0, 255).astype(np.uint8)


def named(found: list[Finding], phrase: str) -> list[Finding]:
    return [finding for finding in found if phrase in finding.sentence]


def test_pictures_without_defects_have_no_advice() -> None:
    assert find_preprocessing(measured(photos())) == []


@pytest.mark.parametrize(
    ("spoil", "phrase"),
    [
        (letterboxed, "have uniform borders"),
        (faded, "use less than 96 of 256 levels"),
        (noisy, "have noise of a standard deviation above 8 levels"),
    ],
)
def test_the_advised_step_removes_borders_narrow_levels_and_noise(
    spoil: Callable[[np.ndarray], np.ndarray], phrase: str
) -> None:
    pictures = [spoil(picture) for picture in photos()]
    (finding,) = named(find_preprocessing(measured(pictures)), phrase)
    assert finding.num_concerned >= 0.9 * NUM
    assert finding.advice is not None
    plan = opened(finding.advice.yaml)
    assert plan is not None
    compose = Program.compile(plan).compose(augment=False)
    mended = [np.asarray(compose(image=picture)["image"]) for picture in pictures]
    assert named(find_preprocessing(measured(mended)), phrase) == []


def test_borders_of_few_images_are_listed_without_a_step_for_all() -> None:
    pictures = photos()
    pictures[3] = letterboxed(pictures[3])
    (finding,) = find_preprocessing(measured(pictures))
    assert finding.keys == ("image-00003.jpg",)
    assert finding.advice is not None
    assert finding.advice.yaml == ""


def test_advised_steps_come_before_those_of_the_plan() -> None:
    plan = Plan.model_validate(
        {"index": "none.parquet", "preprocess": [{"Resize": {"height": 32, "width": 32}}]}
    )
    (finding,) = named(find_preprocessing(measured([faded(one) for one in photos()]), plan), "levels")
    assert finding.advice is not None
    assert [next(iter(step)) for step in yaml.safe_load(finding.advice.yaml)["preprocess"]] == [
        "AutoContrast",
        "Resize",
    ]


def test_different_sizes_give_a_size_that_enlarges_few_and_equal_ones_none() -> None:
    sides = np.linspace(150, 900, 40)
    (finding,) = find_preprocessing(make_table(40, files={"width": sides, "height": sides * 1.5}))
    assert "from 188 to 862 px in 90 % of the 40 images, the median is 525 px" in finding.sentence
    assert finding.advice is not None
    plan = opened(finding.advice.yaml)
    assert plan is not None
    assert plan.augment[0].options["size"] == [160, 160]
    equal = np.full(40, 300.0)
    assert find_preprocessing(make_table(40, files={"width": equal, "height": equal})) == []
    assert find_preprocessing(make_table(40, files={"width": sides, "height": sides}), plan) == []


def test_constants_of_normalization_far_from_those_of_the_images_are_found_and_near_ones_are_not() -> None:
    pictures = [(picture // 4).astype(np.uint8) for picture in photos()]
    plan = Plan.model_validate({"index": "none.parquet", "preprocess": [{"Normalize": {}}]})
    (finding,) = named(find_preprocessing(measured(pictures), plan), "standard deviations")
    assert finding.advice is not None
    advised = opened(finding.advice.yaml)
    assert advised is not None
    assert named(find_preprocessing(measured(pictures), advised), "standard deviations") == []


def test_drift_advises_an_augmentation_whose_range_reaches_the_other_split() -> None:
    splits = np.array(["train"] * 60 + ["test"] * 60, object)
    generator = np.random.default_rng(1)
    brightness = np.where(splits == "train", 100, 160) + generator.normal(0, 10, 120)
    noise = np.where(splits == "train", 2, 10) + generator.normal(0, 0.5, 120)
    table = make_table(120, splits=splits, images={"brightness": brightness, "noise": noise})
    (finding,) = find_drift(table)
    assert finding.advice is not None
    plan = opened(finding.advice.yaml)
    assert plan is not None
    options = {spec.name: spec.options for spec in plan.augment}
    low, high = options["RandomBrightnessContrast"]["brightness_limit"]
    assert low < 0
    assert high == pytest.approx(60 / 255 + 0.05, abs=0.02)
    assert options["GaussNoise"]["std_range"][1] == pytest.approx(9.8 / 255, abs=0.004)


def test_the_remaining_advice_opens_as_well() -> None:
    for text in AUGMENTATIONS.values():
        assert opened(text) is not None
    (imbalance,) = find_class_balance(make_table(40, labels=np.array([0] * 35 + [1] * 5)))
    assert imbalance.advice is not None
    assert opened(imbalance.advice.yaml) is None


def test_advice_is_among_the_results_of_all_checks() -> None:
    found, _ = run_checks(measured([faded(one) for one in photos()]))
    assert "preprocessing" in {finding.kind for finding in found}
