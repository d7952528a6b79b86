"""Flips and changes of color that turn one class into another are found, and harmless ones are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
import yaml
from lightwell.models.audits.dataset.checks.confusing_steps import find_confusing_steps
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.dataset.effects.changed_features import ChangingStep, changing_steps
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from PIL import Image

from ..checks.made_tables import make_table

AUGMENT: list[dict[str, Any]] = [
    {"RandomBrightnessContrast": {"p": 0.5}},
    {"OneOf": {"transforms": [{"HorizontalFlip": {"p": 1.0}}], "p": 0.5}},
    {"VerticalFlip": {}},
]
NUM = 22
"""Images of each class."""


def step_of(plan: Plan) -> ChangingStep:
    """Return the first changing step of a plan."""
    return next(changing_steps(DatasetAudit(plan=plan)))


def changed_by(table: DatasetTable, features: np.ndarray) -> pa.Table:
    width = features.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.astype(np.float32).ravel()), width)
    return pa.table({"key": table.keys.tolist(), "feature": column})


def feature_table(seed: int, num_classes: int = 3) -> DatasetTable:
    """Make features of classes whose means are far apart beside the noise."""
    generator = np.random.default_rng(seed)
    labels = np.arange(300) * num_classes // 300
    features = generator.normal(0, 0.3, (300, 8)) + 1.5 * np.eye(8)[labels]
    return make_table(300, num_classes, labels=labels, features=features.astype(np.float32))


def test_a_change_that_turns_one_class_into_another_is_found_in_that_direction_only() -> None:
    table = feature_table(0)
    assert table.features is not None
    features = table.features.copy()
    features[:90] += 1.5 * (np.eye(8)[1] - np.eye(8)[0])
    plan = Plan.model_validate({"index": "none.parquet", "augment": AUGMENT})
    (finding,) = find_confusing_steps(table, plan, [(step_of(plan), changed_by(table, features))])
    assert finding.sentence.startswith(
        "HorizontalFlip (augment[1]) makes 'class-0' look like 'class-1': of 100 images, 9"
    )
    assert "are classified as 'class-1' mirrored left to right" in finding.sentence
    assert finding.severity == "high"
    assert finding.effect.low is not None
    assert 0.75 < finding.effect.low < finding.effect.value < 0.95
    assert finding.advice is not None
    assert [next(iter(step)) for step in yaml.safe_load(finding.advice.yaml)["augment"]] == [
        "RandomBrightnessContrast",
        "VerticalFlip",
    ]


def test_noise_and_a_change_that_spoils_all_classes_alike_are_not_found() -> None:
    plan = Plan.model_validate({"index": "none.parquet", "augment": AUGMENT})
    found = 0
    for seed in range(20):
        table = feature_table(seed, 2 + seed % 2)
        assert table.features is not None
        generator = np.random.default_rng(100 + seed)
        noisy = table.features + generator.normal(0, 0.3, table.features.shape)
        spoiled = generator.normal(0, 1, table.features.shape)
        drawn = np.tile(1.5 * np.eye(8)[2], (300, 1))
        for features in (noisy, spoiled) if seed % 2 == 0 else (noisy, spoiled, drawn):
            found += len(find_confusing_steps(table, plan, [(step_of(plan), changed_by(table, features))]))
    assert found == 0


def test_unlabelled_and_small_classes_and_missing_features_are_left_out() -> None:
    plan = Plan.model_validate({"index": "none.parquet", "augment": AUGMENT})
    table = feature_table(0)
    assert table.features is not None
    changes = [(step_of(plan), changed_by(table, table.features))]
    for labels in (np.full(300, -1), np.where(np.arange(300) < 5, 1, 0)):
        assert (
            find_confusing_steps(make_table(300, labels=labels, features=table.features), plan, changes) == []
        )
    assert find_confusing_steps(make_table(300), plan, changes) == []


@pytest.mark.parametrize(
    ("augment", "names"),
    [
        (AUGMENT, ["horizontal_flip", "vertical_flip"]),
        ([{"D4": {}}, {"RandomRotate90": {}}, {"ToGray": {}}], ["half_turn", "gray"]),
        ([{"HueSaturationValue": {"hue_shift_limit": [-20, 4]}}], ["hue"]),
        ([{"ColorJitter": {"hue": 0.001}}, {"RandomCrop": {"height": 8, "width": 8}}], []),
    ],
)
def test_only_flips_and_changes_of_color_of_the_plan_are_examined(
    augment: list[Any], names: list[str]
) -> None:
    plan = Plan.model_validate({"index": "none.parquet", "augment": augment})
    assert [changing.name for changing in changing_steps(DatasetAudit(plan=plan))] == names


def test_an_audit_with_a_network_finds_that_a_flip_turns_left_into_right(tmp_path: Path) -> None:
    """The classes are ramps from dark to light in either direction, so that only the direction tells them apart."""
    generator = np.random.default_rng(2)
    for number in range(2 * NUM):
        name = ("left", "right")[number % 2]
        ramp = np.tile(np.linspace(0, 200, 16), 4) + generator.uniform(0, 50)
        pixels = np.broadcast_to(ramp[:: 1 if name == "left" else -1], (64, 64))
        pixels = pixels + generator.normal(0, 5, (64, 64))
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        image = np.repeat(pixels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(image).save(tmp_path / "photos" / name / f"{number}.png")
    build_index(tmp_path / "photos", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.pth")
    model = ModelSpec(name="timm:test_resnet", weights=str(tmp_path / "weights.pth"))
    plan = Plan.model_validate(
        {"index": tmp_path / "index.parquet", "augment": AUGMENT, "preprocess": [{"Normalize": {}}]}
    )
    audit = DatasetAudit(plan=plan, model=model)
    found = run_batch_job(audit, LocalEngine(num_threads=1), tmp_path / "out")["findings"]
    sentences = [
        each["sentence"] for each in found if each["kind"] == "plan_effect" and "makes" in each["sentence"]
    ]
    assert sorted(sentence.partition(":")[0] for sentence in sentences) == [
        "HorizontalFlip (augment[1]) makes 'left' look like 'right'",
        "HorizontalFlip (augment[1]) makes 'right' look like 'left'",
    ]
