"""A resumed training run verifies its files first."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightwell.models.training.job import Classify
from lightwell.models.training.optimization.schedule import LRSchedule
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.errors import ModelError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder


class Lines(SilentConsole):
    """Records printed lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        self.lines.append(line)


def test_damaged_best_weights_or_metrics_are_detected_before_a_run_resumes(tmp_path: Path) -> None:
    build_index(make_folder(tmp_path / "photos")).save(tmp_path / "index.parquet")
    plan = Plan.model_validate(
        {
            "index": tmp_path / "index.parquet",
            "preprocess": [{"Resize": {"height": 32, "width": 32}}],
            "batch": {"size": 4},
        }
    )
    out, engine, console = tmp_path / "out", LocalEngine(num_threads=1), Lines()
    model = ModelSpec(name="timm:test_resnet", weights="none")
    run_training_job(
        Classify(plan=plan, model=model, epochs=1, schedule=LRSchedule(kind="constant")), engine, out, console
    )
    longer = Classify(plan=plan, model=model, epochs=2, schedule=LRSchedule(kind="constant"))
    best, metrics = out / "best.safetensors", out / "metrics.jsonl"
    whole = best.read_bytes()
    for damaged in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-100]):
        best.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"best\.safetensors"):
            run_training_job(longer, engine, out, console)
    best.write_bytes(whole)
    metrics.write_bytes(b"\xff\x00" + metrics.read_bytes().replace(b'"epoch"', b'"ep\xffch"'))
    assert run_training_job(longer, engine, out, console)["epochs"] == 2
    assert [line for line in console.lines if "the lines of 1 finished epochs are damaged or missing" in line]
    assert len(metrics.read_bytes().splitlines()) == 2
