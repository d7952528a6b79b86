"""Results of a training: calibration that travels with the weights, tables, figures, events and facts of the run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightwell import Classify, LocalEngine, ModelSpec, Plan, build_index, load, run_training_job
from lightwell.models.inference.saved import trained_index
from lightwell.models.training.checkpoint import read_metadata
from lightwell.models.training.optim import OptimizerSpec
from pictures import make_folder
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Classify:
    photos = make_folder(tmp_path_factory.mktemp("results") / "photos", num_images=48)
    index = photos.parent / "index.parquet"
    build_index(photos, fractions={"train": 0.4, "val": 0.3, "test": 0.3}).save(index)
    plan = Plan(index=index, preprocess=[{"Resize": {"height": 32, "width": 32}}], batch={"size": 8}, seed=2)
    model = ModelSpec(name="timm:test_resnet", weights="none")
    return Classify(
        plan=plan,
        model=model,
        epochs=2,
        fine_tune_from="all",
        optimizer=OptimizerSpec(lr=0.02),
        tensorboard=True,
    )


@pytest.fixture(scope="module")
def trained(job: Classify, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "out"
    run_training_job(job, LocalEngine(num_threads=1), out)
    return out


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_temperature_of_the_validation_travels_with_the_best_weights(trained: Path) -> None:
    test = read(trained / "result.json")["test"]
    temperature = read_metadata(trained / "best.safetensors")[0].temperature
    assert temperature != 1
    assert test["calibration"]["temperature"] == temperature == load(trained / "best.safetensors").temperature
    assert test["calibration"]["before"] != test["calibration"]["after"]
    for found in (test["calibration"]["before"], test["calibration"]["after"]):
        assert sum(one["num_images"] for one in found["bins"]) == test["images"]
        hits = sum(one["num_images"] * one["accuracy"] for one in found["bins"])
        assert hits / test["images"] == pytest.approx(test["accuracy"])  # the order of classes is the same


def test_the_table_of_classes_and_the_figures_are_those_of_the_test(trained: Path) -> None:
    test = read(trained / "result.json")["test"]
    assert [row["class"] for row in test["per_class"]] == ["cat", "dog"]
    assert [row["images"] for row in test["per_class"]] == np.sum(test["confusion"], axis=1).tolist()
    for name in ("curves.png", "confusion.png", "reliability.png"):
        assert (trained / name).read_bytes().startswith(b"\x89PNG")


def test_the_facts_of_the_run_are_kept(trained: Path, job: Classify) -> None:
    facts = read(trained / "run.json")
    assert facts["seed"] == 2
    assert facts["index"] == str(job.plan.index)
    assert trained_index(trained / "best.safetensors") == job.plan.index
    assert facts["job"] == json.loads(json.dumps(job.result_config()))
    assert {"python", "torch", "lightwell"} <= facts["versions"].keys()
    assert facts["machine"]["cpus"] >= 1
    assert facts["command"]


def test_the_event_file_holds_the_metrics_of_every_epoch(trained: Path) -> None:
    data = (trained / "tensorboard" / "events.out.tfevents.lightwell").read_bytes()
    found: dict[tuple[str, int], float] = {}
    place = 0
    while place < len(data):
        (length,) = struct.unpack("<Q", data[place : place + 8])
        content = data[place + 12 : place + 12 + length]
        (checksum,) = struct.unpack("<I", data[place + 12 + length : place + 16 + length])
        assert checksum == masked_crc32c(content)
        event = Event.FromString(content)
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        place += 16 + length
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 4
    for row in rows:
        assert found[f"{row['split']}/loss", row["epoch"] + 1] == pytest.approx(row["loss"])
        assert found[f"{row['split']}/accuracy", row["epoch"] + 1] == pytest.approx(row["accuracy"])


def test_a_run_that_is_extended_continues_curves_and_events(
    job: Classify, trained: Path, tmp_path: Path
) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    flat = {"schedule": {"kind": "constant"}}
    longer = Classify.model_validate({**job.model_dump(), **flat, "plan": job.plan, "epochs": 2})
    shorter = longer.model_copy(update={"epochs": 1})
    engine = LocalEngine(num_threads=1)
    run_training_job(longer, engine, once)
    run_training_job(shorter, engine, twice)
    run_training_job(longer, engine, twice)
    temperatures = [read_metadata(out / "best.safetensors")[0].temperature for out in (once, twice)]
    assert temperatures[0] == temperatures[1]
    sizes = [(out / "tensorboard" / "events.out.tfevents.lightwell").stat().st_size for out in (once, twice)]
    assert sizes[0] == sizes[1]
    assert (
        read(once / "result.json")["test"]["calibration"]
        == read(twice / "result.json")["test"]["calibration"]
    )
