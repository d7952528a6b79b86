"""Training on Ray Train: what two ranks learn on a cluster, whatever is killed meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from clusters import Cluster, ray_cluster
from lightwell.pipeline.dataset.indexing import build_index
from lightwell.pipeline.engine.feed import LocalEngine
from lightwell.pipeline.jobfile import load_job
from lightwell.pipeline.progress import SilentConsole
from lightwell.workers.cluster import Resources
from lightwell.workers.local import run_training_job
from lightwell.workers.train.trainer import RayTrainer
from pictures import make_folder
from safetensors import safe_open

pytestmark = pytest.mark.ray

RELATIVE = 2e-4
"""Of losses: sums of the same numbers in another order, over some steps of learning."""


class Lines(SilentConsole):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("train")
    photos = make_folder(root / "photos", num_images=32)
    build_index(photos, fractions={"train": 0.6, "val": 0.22, "test": 0.18}).save(root / "index.parquet")
    for path in sorted(photos.rglob("*.jpg"))[::15]:
        path.write_bytes(path.read_bytes()[:300])
    return root


def job_for(folder: Path, **changes: Any) -> Any:
    """Nineteen images to learn from in batches of eight, two of which cannot be used; BatchNorm and dropout."""
    content = {
        "plan": {
            "index": "index.parquet",
            "preprocess": [{"Resize": {"height": 32, "width": 32}}],
            "augment": ["HorizontalFlip"],
            "batch": {"size": 8},
            "errors": {"max_bad_share": 0.5},
        },
        "model": {"name": "mobilenet_v3_small", "weights": "none"},
        "fine_tune_from": "all",
        "epochs": 2,
        "optimizer": {"name": "sgd", "lr": 0.05},
        "checkpoint_every": {"steps": 1},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return load_job(path, default="classify")


def read(out: Path) -> dict[str, Any]:
    """All that a run leaves, but for what is measured in seconds and where it lies."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    assert result["checkpoint"] == f"{out}/best.safetensors"
    return {
        "losses": [line["loss"] for line in lines] + [result["test"]["loss"]],
        "images": [(line["epoch"], line["split"], line["images"], line["ignored"]) for line in lines],
        "counts": json.loads((out / "counts.json").read_text()),
        "quarantine": (out / "quarantine.jsonl").read_text(),
        "files": sorted(path.name for path in out.iterdir()),
    }


def weights(out: Path) -> dict[str, torch.Tensor]:
    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_equal(out: Path, whole: Path) -> None:
    """To the last bit."""
    assert read(out) == read(whole)
    ours, theirs = weights(out), weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def steps_done(out: Path) -> int:
    """How far the last checkpoint is."""
    try:
        with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
            position = json.loads(file.metadata()["progress"])["position"]
    except FileNotFoundError:
        return 0
    return int(position["epoch"] * 3 + position["step"])


def trainer(cluster: Cluster, num_workers: int = 2, **options: Any) -> RayTrainer:
    return RayTrainer(cluster.address, num_workers, Resources(1), 64 << 20, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster(2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def whole(folder: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks leave when nothing happens to them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    console = Lines()
    trainer(cluster).run(job_for(folder), str(out), console)
    assert [line.split(":")[0] for line in console.lines if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]
    return out


def test_two_ranks_of_a_cluster_learn_what_one_process_learns(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "alone"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run_training_job(job_for(folder), LocalEngine(num_threads=1), out, SilentConsole())
    torch.set_num_threads(threads)
    expected, got = read(out), read(whole)
    assert got["losses"] == pytest.approx(expected["losses"], rel=RELATIVE)
    assert {**got, "losses": None} == {**expected, "losses": None}
