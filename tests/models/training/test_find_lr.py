"""The learning-rate finder of a training job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightwell.models.training.find_lr import FindLearningRate
from lightwell.models.training.job import Classify
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder


class Lines(SilentConsole):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Classify:
    root = tmp_path_factory.mktemp("rates")
    photos = make_folder(root / "photos", num_images=12)
    build_index(photos, fractions={"train": 0.6, "val": 0.2, "test": 0.2}).save(root / "index.parquet")
    resize = {"Resize": {"height": 32, "width": 32}}
    plan = Plan(index=root / "index.parquet", preprocess=[resize], batch={"size": 4})
    return Classify(
        plan=plan,
        model={"name": "timm:test_resnet", "weights": "none"},
        fine_tune_from="layer4",
        optimizer={"lr": 0.5},
        accumulate=2,
        ema={},
    )


def test_it_writes_a_curve_and_a_picture_prints_what_to_paste_and_finds_the_same_again(
    job: Classify, tmp_path: Path
) -> None:
    console, state = Lines(), torch.get_rng_state()
    found: Any = run_training_job(FindLearningRate(job), LocalEngine(num_threads=1), tmp_path, console)
    assert torch.equal(torch.get_rng_state(), state)
    written = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert written == {"lr_finder.png", "lr_finder.json", "quarantine.jsonl", "counts.json"}
    assert json.loads((tmp_path / "lr_finder.json").read_text()) == found
    assert [*found["suggestions"]] == ["valley", "steepest", "minimum/10"]
    assert all(1e-7 <= rate < 10 for rate in found["suggestions"].values())
    again: Any = run_training_job(FindLearningRate(job), LocalEngine(num_threads=1), tmp_path)
    assert again == found
    line = next(line for line in console.lines if line.startswith("learning rate: "))
    assert f"optimizer: {{lr: {found['suggestions']['valley']:.2g}}}" in line


def test_jobs_of_other_kinds_are_refused() -> None:
    with pytest.raises(PlanError, match="--find-lr: expected one of Lightwell's training jobs, got Lines"):
        FindLearningRate.of(Lines())
