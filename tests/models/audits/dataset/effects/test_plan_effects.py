"""What a plan does to a dataset becomes findings, and the advised plans no longer do it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from annotated import Scene, write_index
from commands import lightwell
from lightwell.models.audits.dataset.checks.plan_effects import find_plan_effects
from lightwell.models.audits.dataset.effects.effect_stage import EffectStage
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.audits.findings.finding import Finding
from lightwell.pipeline.load.samples import ImageSample
from lightwell.pipeline.plan.plan import Plan

from ..checks.made_tables import make_table

HARMFUL: dict[str, Any] = {
    "augment": [
        {"RandomResizedCrop": {"size": [224, 224], "scale": [0.08, 0.6]}},
        {"HorizontalFlip": {}},
        {"RandomBrightnessContrast": {"brightness_limit": 0.5, "contrast_limit": 0.0, "p": 1.0}},
        {"Normalize": {}},
    ],
    "evaluate": [
        {"SmallestMaxSize": {"max_size": 224}},
        {"CenterCrop": {"height": 224, "width": 224}},
        {"Normalize": {}},
    ],
}
HARMLESS: dict[str, Any] = {
    "augment": [
        {"RandomResizedCrop": {"size": [64, 64], "scale": [0.8, 1.0]}},
        {"RandomBrightnessContrast": {"brightness_limit": 0.05, "contrast_limit": 0.05, "p": 0.5}},
    ],
    "evaluate": [{"Resize": {"height": 64, "width": 64}}],
}
NUM = 24


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide pictures of 64 x 96 pixels of different brightness with a box at their left end."""
    generator = np.random.default_rng(5)
    scenes = []
    for number in range(NUM):
        level = int(generator.integers(70, 180))
        image = np.clip(generator.normal(level, 20, (64, 96, 3)), 1, 254).astype(np.uint8)
        scenes.append(Scene(f"{number:02}.png", image, boxes=[[2, 16, 18, 48]], box_labels=[number % 2]))
    return write_index(tmp_path_factory.mktemp("wide"), scenes, keypoint_names=())


@cache
def pictures(index: Path) -> list[ImageSample]:
    """Decode the images of an index."""
    import cv2

    rows = Plan(index=index).load_index().table.to_pylist()
    return [ImageSample(row["key"], cv2.imread(row["uri"])[..., ::-1].copy(), row) for row in rows]


@pytest.fixture(scope="module")
def harm(index: Path) -> dict[str, Finding]:
    """The findings about the harmful plan."""
    return found_by(index, HARMFUL)


def found_by(index: Path, policy: dict[str, Any]) -> dict[str, Finding]:
    """Return the findings about a plan by id."""
    plan = Plan.model_validate({"index": index, **policy})
    with EffectStage(DatasetAudit(plan=plan)).open({}) as process:
        effects = pa.Table.from_batches([process(pictures(index))])
    return {finding.id: finding for finding in find_plan_effects(make_table(NUM), plan, effects)}


def test_a_plan_that_cuts_enlarges_and_clips_has_a_finding_for_each_and_a_mild_one_has_none(
    index: Path, harm: dict[str, Finding]
) -> None:
    sentences = [finding.sentence for finding in harm.values()]
    starts = (
        "RandomResizedCrop (augment[0]) keeps less than 30 % of the object in ",
        "CenterCrop (evaluate[1]) keeps less than 30 % of the object in 100 % ",
        "100 % [100, 100] of the images are enlarged more than 2 times (median short side 64 px, to 224 x 224)",
        "RandomBrightnessContrast (augment[2]) clips more than 10 % of the pixels to 0 or 255 in ",
        "The brightness of ",
    )
    assert [sentence.startswith(start) for sentence, start in zip(sentences, starts, strict=True)] == 5 * [
        True
    ]
    assert "measured on 24 images in 4 views each" in sentences[0]
    assert found_by(index, HARMLESS) == {}


def test_the_plan_that_a_finding_advises_opens_and_does_not_have_the_finding(
    index: Path, harm: dict[str, Finding]
) -> None:
    for finding in harm.values():
        assert finding.advice is not None
        advised = yaml.safe_load(finding.advice.yaml)
        assert advised.keys() <= {"preprocess", "augment", "evaluate"}
        assert {"Normalize": {}} in next(iter(advised.values()))
        assert finding.id not in found_by(index, HARMFUL | advised), finding.sentence


def test_effects_of_nested_steps_are_named_and_changed_where_they_are_written(index: Path) -> None:
    nested = {
        "OneOf": {
            "transforms": [
                {"RandomBrightnessContrast": {"brightness_limit": [0.5, 0.6], "p": 1.0}},
                {"RandomGamma": {"gamma_limit": [100, 100], "p": 1.0}},
            ],
            "p": 1.0,
        }
    }
    (finding,) = (
        finding
        for finding in found_by(index, {"augment": [{"HorizontalFlip": {}}, nested]}).values()
        if "clips" in finding.sentence
    )
    assert finding.sentence.startswith("RandomBrightnessContrast (augment[1]) clips")
    assert finding.advice is not None
    changed = yaml.safe_load(finding.advice.yaml)["augment"]
    assert changed[0] == {"HorizontalFlip": {}}
    first, second = changed[1]["OneOf"]["transforms"]
    assert first["RandomBrightnessContrast"]["brightness_limit"] == [0.125, 0.15]
    assert second == nested["OneOf"]["transforms"][1]


def test_a_plan_that_fails_on_images_is_a_finding_of_high_severity(index: Path) -> None:
    found = found_by(index, {"preprocess": [{"Crop": {"x_max": 64, "y_max": 90}}]})
    (finding,) = found.values()
    assert finding.severity == "high"
    assert (
        "fails on 24 of 24 images, first with: ValueError: expected a crop inside 64x96" in finding.sentence
    )


def test_the_command_measures_a_plan_on_the_images_of_an_index_on_any_number_of_threads(
    index: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"index": "elsewhere.parquet", **HARMFUL}))
    command = ("inspect", index, "--plan", "plan.yaml", "--quiet")
    for threads in (1, 3):
        done = lightwell(*command, "--threads", threads, "--out", f"out{threads}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out1" / "findings.json").read_text())
    assert [each["kind"] for each in found["findings"]].count("plan_effect") == 5
    one, three = (
        pq.read_table(next((tmp_path / name / "stages").glob("plan_effects-*"))) for name in ("out1", "out3")
    )
    assert one.equals(three)
    assert one.num_rows == 5 * NUM
    assert (tmp_path / "out1" / "findings.json").read_bytes() == (
        tmp_path / "out3" / "findings.json"
    ).read_bytes()


def test_another_plan_measures_no_file_and_no_image_again(index: Path, tmp_path: Path) -> None:
    stages = []
    for name, policy in (("a", HARMFUL), ("b", HARMLESS)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"index": "elsewhere.parquet", **policy}))
        plan = Plan.load(tmp_path / f"{name}.yaml").model_copy(update={"index": index})
        stages.append({stage.name: stage.fingerprint() for stage in DatasetAudit(plan=plan).stages})
    same = {name for name in stages[0] if stages[0][name] == stages[1][name]}
    assert {"files", "images", "records"} <= same
    assert "plan_effects" not in same


def test_a_plan_beside_a_job_file_is_refused(tmp_path: Path) -> None:
    done = lightwell("inspect", "job.yaml", "--plan", "plan.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2
    assert "--plan: expected a folder" in done.stderr


def test_a_plan_without_random_steps_is_measured_once_and_has_one_finding_about_its_crop(index: Path) -> None:
    crop = {"preprocess": [{"CenterCrop": {"height": 64, "width": 64}}, {"Normalize": {}}]}
    (finding,) = found_by(index, crop).values()
    assert finding.sentence.startswith(
        "CenterCrop (preprocess[0]) keeps less than 30 % of the object in 100 % "
    )
    assert finding.sentence.endswith("measured on 24 images.")
    assert finding.advice is not None
    assert found_by(index, yaml.safe_load(finding.advice.yaml)) == {}
