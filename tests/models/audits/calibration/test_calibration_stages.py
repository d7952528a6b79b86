"""The stages of a calibration: images are chosen, experiments run and resume, and the audit tells what it could not do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from lightwell import GradCamAudit, LocalEngine, ModelSpec, Plan, build_index, run_batch_job
from lightwell.models.audits.calibration.stages import (
    CALIBRATION,
    EXPERIMENTS,
    MAX_CLASSES,
    MAX_PER_CLASS,
    MIN_PER_CLASS,
    CalibrationStage,
    ExperimentImageStage,
    ExperimentStage,
    cost_sentence,
    list_experiments,
    pool_of,
    summarize_calibration,
)
from lightwell.models.audits.gradcam.map_stage import MapStage
from lightwell.pipeline.jobs.progress import SilentConsole
from pictures import make_picture, write_picture
from ray_jobs import files_of

CLASSES = ("cat", "dog")
MARKS = [(0.01, 0.5), (0.01, 1.0), (0.1, 0.5)]


@dataclass(frozen=True)
class ShortCalibration:
    """The calibration of an audit, with two experiments."""

    audit: GradCamAudit

    @property
    def plan(self) -> Plan:
        return self.audit.plan

    @cached_property
    def stages(self) -> tuple[Any, ...]:
        audit = self.audit
        return (
            MapStage(audit),
            ExperimentStage(audit, areas=(0.1,), repeats=1, prevalences=(0.5, 1.0)),
            ExperimentImageStage(audit),
            CalibrationStage(audit),
        )

    def finish(self, records: Mapping[str, pa.Table], context: Any) -> dict[str, Any]:
        found = summarize_calibration(records[EXPERIMENTS], records[CALIBRATION], CLASSES, self.plan.seed)
        (context.out / "limit.json").write_text(json.dumps(found))
        return found


def make_plan(root: Path, num_images: int, side: int = 32) -> Plan:
    """Write images of two classes; returns a plan that reads them."""
    for number in range(num_images):
        picture = make_picture(number, height=side, width=side) // 2
        picture[side // 4 : side // 2, side // 4 : side // 2, number % 2] = 200
        write_picture(root / "photos" / CLASSES[number % 2] / f"{number:03}.png", picture)
    build_index(root / "photos", fractions={"test": 1.0}).save(root / "index.parquet")
    normalize = {"Normalize": {"mean": [0.3, 0.3, 0.3], "std": [0.2, 0.2, 0.2]}}
    return Plan.model_validate(
        {"index": root / "index.parquet", "preprocess": [normalize], "batch": {"size": 16}}
    )


def make_audit(plan: Plan, name: str = "timm:test_resnet", **keys: Any) -> GradCamAudit:
    model = ModelSpec(name=name, weights="none", num_classes=2)
    return GradCamAudit(plan=plan, model=model, untrained="allow", class_names="index", gallery=1, **keys)


class Interrupting(SilentConsole):
    """Console that interrupts the run after the first experiment."""

    def track(self, batches: Any, label: str) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            if number and label.endswith(CALIBRATION):
                raise KeyboardInterrupt
            yield batch


def test_an_interrupted_calibration_resumes_with_the_same_files(tmp_path: Path) -> None:
    job = ShortCalibration(make_audit(make_plan(tmp_path, 2 * MIN_PER_CLASS, side=128)))
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    found = run_batch_job(job, LocalEngine(num_threads=2), whole, SilentConsole(), part_images=1)
    assert (found["num_experiments"], found["num_images"], found["images_per_class"]) == (2, 40, 10)
    assert found["classes"] == list(CLASSES)
    assert found["num_relied"] == 2
    assert found["reason"].startswith("only 2 of 2 probes relied on the planted mark")
    engine = LocalEngine(num_threads=1)
    with pytest.raises(KeyboardInterrupt):
        run_batch_job(job, engine, resumed, Interrupting(), part_images=1)
    run_batch_job(job, engine, resumed, SilentConsole(), part_images=1)
    assert files_of(resumed) == files_of(whole)


@pytest.mark.parametrize(
    ("num_images", "name", "reason"),
    [
        (8, "timm:test_resnet", "two classes with 20 labelled images each, and the split has 0"),
        (2 * MIN_PER_CLASS, "timm:test_vit", "average pooling and a linear layer"),
    ],
)
def test_an_audit_that_cannot_be_calibrated_says_why(
    tmp_path: Path, num_images: int, name: str, reason: str
) -> None:
    job = make_audit(make_plan(tmp_path, num_images), name, calibrate=True, trust_images=0, interventions=0)
    findings = run_batch_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())
    assert reason in findings["detection_limit"]["reason"]
    assert "The detection limit was not measured: " in (tmp_path / "out" / "report.html").read_text()
    from importlib.resources import files

    schema = files("lightwell.models.audits.gradcam").joinpath("findings.schema.json").read_text()
    jsonschema.validate(json.loads((tmp_path / "out" / "findings.json").read_text()), json.loads(schema))


def records_of(sizes: Mapping[int, int], *, known: bool = True) -> pa.Table:
    """Return records with labels only."""
    labels = [label for label, size in sizes.items() for _ in range(size)]
    keys = [f"{number:05}" for number in range(len(labels))]
    return pa.table({"key": keys, "label": pa.array(labels, pa.int64()), "known": [known] * len(labels)})


def test_the_largest_classes_are_chosen_and_each_gets_marks_in_turn() -> None:
    sizes = dict(enumerate([30, 25, 90, 40, 19, 50, 22, 120]))
    experiments = pa.Table.from_batches([list_experiments(records_of(sizes), 0, MARKS * 4)])
    chosen = {2, 3, 5, 7}
    assert len(chosen) == MAX_CLASSES
    labels = list(pool_of(experiments).values())
    assert {label: labels.count(label) for label in set(labels)} == {
        label: min(sizes[label], MAX_PER_CLASS) for label in chosen
    }
    assert set(experiments["target"].to_pylist()) == chosen


def test_the_chosen_images_do_not_depend_on_the_order_of_the_records() -> None:
    records = records_of({0: 150, 1: 150})
    reverse = records.take(list(range(records.num_rows))[::-1])
    assert list_experiments(records, 3, MARKS).equals(list_experiments(reverse, 3, MARKS))
    assert not list_experiments(records, 3, MARKS).equals(list_experiments(records, 4, MARKS))


def test_images_without_a_known_label_are_not_enough() -> None:
    rows = list_experiments(records_of({0: 100, 1: 100}, known=False), 0, MARKS)
    assert rows["reason"].to_pylist() == ["no image has a label that the model knows"]


def test_the_cost_is_stated_in_forward_passes() -> None:
    assert "at most 45 experiments on 400 images: about 12,460 forward passes" in cost_sentence()
