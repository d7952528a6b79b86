"""The audit of a model takes in that of its dataset: measures explain errors and findings, and leaked images are left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_tables import image_table, plant
from lightwell import GradCamAudit, ModelSpec, Plan, build_index
from lightwell.models.audits.dataset.job import DatasetAudit
from lightwell.models.audits.findings.finding import read_findings
from lightwell.models.audits.gradcam.dataset_measures import measured_columns, num_unmatched, read_dataset
from lightwell.models.audits.gradcam.suspect_stage import SuspectStage
from lightwell.models.audits.gradcam.suspects.regions import region_suspects
from lightwell.models.audits.gradcam.suspects.traits import MAX_TRAITS, describe_findings, traits_of
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.stages import stage_keys
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_picture

NUM_IMAGES, NUM_LEAKED = 120, 12


def is_recompressed(key: str) -> bool:
    """Whether an image was saved at quality 75, as a third of each class is."""
    return int(Path(key).stem) // 2 % 3 == 0


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Test images of two classes; the training split holds copies of some."""
    root = tmp_path_factory.mktemp("joined")
    for number in range(NUM_IMAGES):
        path = root / "photos" / "test" / ("cat", "dog")[number % 2] / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = 75 if is_recompressed(path.name) else 95
        cv2.imwrite(str(path), make_picture(number, height=32, width=32), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if number < NUM_LEAKED:
            copy = root / "photos" / "train" / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    build_index(root / "photos").save(root / "index.parquet")
    normalize = {"Normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    return Plan.model_validate(
        {"index": root / "index.parquet", "preprocess": [normalize], "batch": {"size": 32}}
    )


@pytest.fixture(scope="module")
def inspected(plan: Plan) -> Path:
    """Records of the dataset's audit."""
    out = plan.index.parent / "inspect"
    run_batch_job(DatasetAudit(plan=plan), LocalEngine(num_threads=1), out)
    return out / "records.parquet"


def audit_of(plan: Plan, **keys: object) -> GradCamAudit:
    model = ModelSpec(name="timm:test_resnet", weights="none", num_classes=2)
    usual = {
        "untrained": "allow",
        "class_names": "index",
        "trust_images": 0,
        "interventions": 0,
        "gallery": 0,
    }
    return GradCamAudit.model_validate({"plan": plan, "model": model, **usual, **keys})


@pytest.fixture(scope="module")
def audited(plan: Plan, inspected: Path) -> Path:
    """Output folder of the model's audit."""
    out = plan.index.parent / "audit"
    run_batch_job(audit_of(plan, dataset_audit=inspected), LocalEngine(num_threads=1), out)
    return out


def test_the_accuracy_is_restated_without_images_that_the_training_split_has(audited: Path) -> None:
    findings = json.loads((audited / "findings.json").read_text())
    (leak,) = [each for each in findings["findings"] if each["kind"] == "leakage"]
    records = pq.read_table(audited / "records.parquet")
    right = {
        key: label == prediction
        for key, label, prediction in zip(
            *(records[name].to_pylist() for name in ("key", "label", "prediction")), strict=True
        )
    }
    others = [value for key, value in right.items() if int(Path(key).stem) >= NUM_LEAKED]
    assert leak["sentence"].startswith(
        f"{NUM_LEAKED} of {NUM_IMAGES} images of test have exact copies in train"
    )
    assert (
        f"the accuracy is {100 * np.mean(others):.1f} % instead of {100 * findings['accuracy']:.1f} %"
        in (leak["sentence"])
    )
    assert leak["severity"] == "high"
    assert not any("no records" in note for note in findings["notes"])


def test_errors_of_images_saved_at_one_quality_are_found_by_the_measures(
    plan: Plan, inspected: Path, audited: Path
) -> None:
    records = pq.read_table(audited / "records.parquet")
    labels = records["label"].to_numpy()
    is_wrong = np.array([is_recompressed(key) for key in records["key"].to_pylist()])
    place = records.schema.get_field_index("prediction")
    wrong = pa.array(np.where(is_wrong, 1 - labels, labels))
    records = records.set_column(place, records.schema.field(place), wrong)
    groups = {}
    for given in (inspected, None):
        with SuspectStage(audit_of(plan, dataset_audit=given)).open({}) as process:
            found = read_findings(pa.Table.from_batches([process(records)]))
        groups[given] = [each.group or "" for each in found if each.kind == "slice"]
    assert "jpeg_quality is 75" in groups[inspected]
    assert not any("quality" in group for group in groups[None])


def test_another_audit_of_the_dataset_searches_again_and_computes_no_map_again(
    plan: Plan, inspected: Path, tmp_path: Path
) -> None:
    other = tmp_path / "records.parquet"
    pq.write_table(pq.read_table(inspected).slice(1), other)
    without, one, two = (
        stage_keys(audit_of(plan, dataset_audit=path).stages) for path in (None, inspected, other)
    )
    assert without["maps"] == one["maps"] == two["maps"]
    for name in ("suspects", "findings", "summary"):
        assert len({without[name], one[name], two[name]}) == 3
    dataset = read_dataset(other, 0)
    keys = [*read_dataset(inspected, 0).keys[:3].tolist()]
    assert num_unmatched(other, keys) == 1
    columns = measured_columns(dataset, keys)
    assert np.isnan(columns["jpeg_quality"]).tolist() == [True, False, False]


@pytest.mark.parametrize("content", [b"no table", None])
def test_other_files_are_refused_before_anything_runs(
    plan: Plan, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "other.parquet"
    if content is None:
        pq.write_table(pa.table({"key": ["a"]}), path)
    else:
        path.write_bytes(content)
    with pytest.raises(PlanError, match=r"dataset_audit: expected records\.parquet of `lightwell inspect`"):
        run_batch_job(audit_of(plan, dataset_audit=path), LocalEngine(num_threads=1), tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.parquet"))


def test_records_of_other_images_are_refused(inspected: Path) -> None:
    with pytest.raises(PlanError, match="none of their keys"):
        num_unmatched(inspected, ["elsewhere/1.jpg"])


@pytest.mark.parametrize("share", [1.0, 0.8])
def test_a_finding_names_the_property_that_its_images_share(share: float) -> None:
    generator = np.random.default_rng(0)
    quality = generator.choice([85.0, 90.0, 95.0], 400)
    quality[100:140] = np.where(generator.random(40) < share, 75.0, 90.0)
    table = image_table(num_each=100, facts={"jpeg_quality": quality, "noise": generator.normal(size=400)})
    plant(table, np.arange(100, 140))
    found = [each for each in describe_findings(region_suspects(table), table) if each.class_name == "class1"]
    assert found
    for each in found:
        assert "jpeg_quality is 75 for " in each.sentence
        assert "of the other images of class1 (q < 0.001)" in each.sentence
    assert not any("noise" in each.sentence for each in found)


def test_a_finding_on_a_class_that_was_saved_otherwise_says_so() -> None:
    generator = np.random.default_rng(0)
    quality = generator.choice([85.0, 90.0, 95.0], 400)
    quality[100:200] = 75.0
    width = np.where(np.arange(400) // 100 == 1, 32.0, 64.0)
    table = image_table(num_each=100, facts={"jpeg_quality": quality, "width": width})
    plant(table, np.arange(100, 140))
    found = [each for each in describe_findings(region_suspects(table), table) if each.class_name == "class1"]
    assert found
    for each in found:
        assert (
            "jpeg_quality is 75 for 100 % of the 40 images that show it and 0 % of the images of other classes"
            in (each.sentence)
        )
        assert "width" not in each.sentence, "it may belong to what the class shows"


def test_properties_that_say_nothing_describe_no_finding_in_forty_tables() -> None:
    named = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        facts: dict[str, Any] = {f"measure{number}": generator.normal(size=240) for number in range(20)}
        facts["exif_camera"] = generator.choice(np.array(["A", "B"], object), 240)
        table = image_table(num_each=60, seed=seed, facts=facts)
        found = traits_of(table, np.arange(60, 84), 1)
        assert len(found) <= MAX_TRAITS
        named += len(found)
    assert named <= 1
