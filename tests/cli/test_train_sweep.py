"""``lightwell train --sweep``: trials, their table, and requests that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from lightwell.cli.app import app
from lightwell.pipeline.index.build import build_index
from pictures import make_folder
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    photos = make_folder(folder / "photos", num_images=24)
    build_index(photos, fractions={"train": 0.6, "val": 0.2, "test": 0.2}).save(folder / "index.parquet")
    plan = {"index": "index.parquet", "preprocess": [{"Resize": {"height": 32, "width": 32}}]}
    job = {"plan": plan, "model": {"name": "squeezenet1_1", "weights": "none"}, "epochs": 1}
    (folder / "train.yaml").write_text(yaml.safe_dump(job))
    sweep = {"keys": {"optimizer.lr": {"min": 0.0001, "max": 0.01, "log": True}}, "trials": 2}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    return folder


def test_the_best_trial_is_named_and_its_folder_is_a_training(folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder / "train.yaml"), "--sweep", str(folder / "sweep.yaml")]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out"), "--threads", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert len(found["trials"]) == 2
    assert (tmp_path / "out" / found["best"] / "best.safetensors").is_file()


def test_requests_that_cannot_work_write_nothing(folder: Path, tmp_path: Path) -> None:
    words = ["train", str(folder / "train.yaml"), "--sweep", str(folder / "sweep.yaml"), "--out"]
    for out, more, message in (
        (str(tmp_path / "out"), ["--find-lr"], "--sweep: expected no --find-lr beside it"),
        ("s3://bucket/out", [], "--out: expected a local folder"),
        (str(tmp_path / "out"), ["--workers", "2"], "--engine: expected ray"),
    ):
        done = CliRunner().invoke(app, [*words, out, *more])
        assert done.exit_code != 0
        assert message in f"{done.output}{done.exception}"
    assert not list(tmp_path.iterdir())
