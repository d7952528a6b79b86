"""Sweeps: the same trials on either engine, features that are computed once, and sweeps that are interrupted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clusters import Cluster
from lightwell.pipeline.errors import ModelError, RequestError, RunError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.jobs.sweep import Sweep, Trial, load_trials
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.train.ray_trials import RayTrials
from lightwell.workers.train.sweep import LocalTrials, run_sweep
from pictures import make_folder
from safetensors.torch import load_file

ENGINE = LocalEngine(num_threads=1)
DIVERGES = 1e30


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head on features of two augmented passes over 14 images."""
    folder = tmp_path_factory.mktemp("sweep")
    photos = make_folder(folder / "photos", num_images=24)
    build_index(photos, fractions={"train": 0.6, "val": 0.2, "test": 0.2}).save(folder / "index.parquet")
    plan = {"index": "index.parquet", "augment": [{"RandomResizedCrop": {"size": [32, 32]}}]}
    content = {
        "plan": {**plan, "evaluate": [{"Resize": {"height": 32, "width": 32}}], "batch": {"size": 8}},
        "model": {"name": "mobilenet_v3_small", "weights": "none"},
        "feature_passes": 2,
        "epochs": 2,
        "optimizer": {"name": "sgd", "lr": 0.01},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(content))
    return folder / "job.yaml"


def trials_of(job_file: Path, rates: Sequence[float]) -> tuple[Trial, ...]:
    return load_trials(Sweep(keys={"optimizer.lr": list(rates)}), job_file, default="classify")


def weights_of(folder: Path) -> dict[str, bytes]:
    """The best weights; the rest of the file holds times."""
    tensors = load_file(folder / "best.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


class Stop(SilentConsole):
    """Is interrupted after the first trial, as by Ctrl-C."""

    def print(self, line: str) -> None:
        if line.startswith("trial-"):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def swept(job_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials in this process, one of which diverges; interrupted after the first."""
    out = tmp_path_factory.mktemp("swept")
    trials = trials_of(job_file, (0.01, DIVERGES, 0.05))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(trials, LocalTrials(ENGINE), out, Stop())
    assert [path.name for path in (out / "trials").iterdir()] == [trials[0].name]
    run_sweep(trials, LocalTrials(ENGINE), out)
    return out


def test_the_table_has_every_trial_best_first(job_file: Path, swept: Path) -> None:
    found = json.loads((swept / "sweep.json").read_text())
    assert [row["state"] for row in found["trials"]] == ["finished", "finished", "failed"]
    assert found["trials"][2]["values"] == {"optimizer.lr": DIVERGES}
    assert "finite" in found["trials"][2]["error"]
    first, second = (row["validation"] for row in found["trials"][:2])
    assert (first["auroc"], -first["loss"]) >= (second["auroc"], -second["loss"])
    assert found["best"] == found["trials"][0]["folder"]
    assert (swept / found["best"] / "best.safetensors").exists()
    lines = (swept / "trials.csv").read_text().splitlines()
    assert lines[0] == "folder,optimizer.lr,auroc,best_epoch,state"
    assert len(lines) == 4
    assert lines[1].startswith(found["best"])


def test_a_trial_gives_the_weights_that_it_gives_alone_and_reads_no_image(
    job_file: Path, swept: Path, tmp_path: Path
) -> None:
    trial = trials_of(job_file, (0.05,))[0]
    run_training_job(trial.job, ENGINE, tmp_path / "alone")
    assert weights_of(tmp_path / "alone") == weights_of(swept / "trials" / trial.name)
    counts = [json.loads((folder / "counts.json").read_text()) for folder in (swept / "trials").glob("*")
              if (folder / "counts.json").exists()]  # fmt: skip
    assert [one["read"] for one in counts] == [0, 0]  # features of both passes were there
    assert list((swept / "shared" / "features").rglob("*.arrow"))
    assert not list((swept / "trials").rglob("features"))


def test_finished_trials_are_not_run_again_and_new_ones_join_them(
    job_file: Path, swept: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(swept, tmp_path / "out"))

    def written() -> dict[str, int]:
        return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("trials/*/result.json")}

    before = written()
    trials = trials_of(job_file, (0.05, 0.02))
    found = run_sweep(trials, LocalTrials(ENGINE), out)
    assert {name: time for name, time in written().items() if name in before} == before
    assert {row["folder"] for row in found["trials"]} == {f"trials/{trial.name}" for trial in trials}
    assert all(row["state"] == "finished" for row in found["trials"])


def test_sweeps_that_cannot_work_are_refused_before_anything_is_written(
    job_file: Path, tmp_path: Path
) -> None:
    wrong = load_trials(Sweep(keys={"fine_tune_from": ["nowhere"]}), job_file, default="classify")
    with pytest.raises(ModelError, match="got 'nowhere'"):
        run_sweep(wrong, LocalTrials(ENGINE), tmp_path / "out")
    with pytest.raises(RequestError, match="expected a local folder"):
        run_sweep(trials_of(job_file, (0.01,)), LocalTrials(ENGINE), "s3://bucket/out")
    assert not list(tmp_path.iterdir())


def test_a_sweep_whose_trials_all_fail_says_why(job_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"expected a trial with a result, got none; the first error: .*finite"
    ):
        run_sweep(trials_of(job_file, (DIVERGES,)), LocalTrials(ENGINE), tmp_path)


@pytest.mark.ray
def test_a_cluster_continues_a_sweep_with_the_same_bytes(
    job_file: Path, swept: Path, cluster: Cluster, tmp_path: Path
) -> None:
    runner = RayTrials(cluster.address, 2, Resources(1), 64 << 20)
    trials = trials_of(job_file, (0.01, DIVERGES, 0.05))
    with pytest.raises(KeyboardInterrupt):
        run_sweep(trials, runner, tmp_path, Stop())
    found = run_sweep(trials, runner, tmp_path)
    here = json.loads((swept / "sweep.json").read_text())
    assert [row["state"] for row in found["trials"]] == ["finished", "finished", "failed"]
    assert found["monitor"] == here["monitor"]
    for trial in (trials[0], trials[2]):
        folder = Path("trials", trial.name)
        assert weights_of(tmp_path / folder) == weights_of(swept / folder)
