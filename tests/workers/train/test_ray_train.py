"""Training on Ray Train: what two ranks learn on a cluster, whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import yaml
from checkpoints import steps_done
from clusters import Cluster, Node, ray_cluster, wait_until
from lightwell.pipeline.errors import ModelError, PlanError, SampleError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.resources import WorkerResources
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from lightwell.workers.ray.cluster import NodeResources, Resources, WorkerGroup
from lightwell.workers.train.capacity import CapacityMonitor
from lightwell.workers.train.rank import check_shared_folder
from lightwell.workers.train.trainer import RayTrainer, max_ranks
from patience import HANG_S
from pictures import make_folder
from safetensors import safe_open

pytestmark = pytest.mark.ray

RELATIVE = 1e-9
"""Of losses in float64: sums of the same numbers in another order, over some steps of learning, whatever the processor."""


class Lines(SilentConsole):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def print(self, line: str) -> None:
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
        "epochs": 4,
        "optimizer": {"name": "sgd", "lr": 0.01},
        "checkpoint_every": {"steps": 1},
        "precision": "float64",
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


def trainer(cluster: Cluster, num_workers: int = 2, **options: Any) -> RayTrainer:
    return RayTrainer(cluster.address, num_workers, Resources(1), 64 << 20, **options)


@pytest.fixture(scope="module")
def whole(folder: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks leave when nothing happens to them."""
    out = tmp_path_factory.mktemp("whole") / "out"
    console = Lines()
    trainer(cluster).run(job_for(folder), str(out), console)
    assert [line.split(":")[0] for line in console.lines if line.startswith("epoch")] == [
        f"epoch {number}/4" for number in (1, 2, 3, 4)
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


@contextmanager
def command(folder: Path, out: Path, cluster: Cluster) -> Iterator[subprocess.Popen[bytes]]:
    """`lightwell train` on two workers, in a process of its own."""
    job_for(folder)
    arguments = ["train", "job.yaml", "--out", str(out), "--engine", "ray", "--address", cluster.address]
    arguments += ["--workers", "2", "--memory", "64M"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lightwell.cli", *arguments], cwd=folder, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ranks_of(node: Node) -> list[int]:
    return node.pids_of("RayTrainWorker")


@pytest.mark.fault("training on Ray: SIGKILL of a rank, then of a node")
@pytest.mark.slow
def test_a_killed_rank_and_a_killed_node_change_nothing(folder: Path, whole: Path, tmp_path: Path) -> None:
    """First one rank's process dies, at a step that chance decides; later the node of another, for good."""
    out = tmp_path / "out"
    with ray_cluster(1, 1, 1) as cluster, command(folder, out, cluster) as process:
        step = random.randrange(1, 6)
        wait_until(
            lambda: steps_done(out, per_epoch=3) >= step or process.poll() is not None, 120, f"step {step}"
        )
        victims = [pid for node in cluster.nodes for pid in ranks_of(node)]
        os.kill(random.choice(victims), signal.SIGKILL)
        wait_until(lambda: steps_done(out, per_epoch=3) >= 8 or process.poll() is not None, 120, "step 8")
        cluster.kill_node(next(node for node in cluster.nodes[1:] if ranks_of(node)))
        assert process.wait(180) == 0, process.stderr.read().decode()
    assert_equal(out, whole)


@pytest.mark.fault("training on Ray: SIGKILL of a node for which there is no other")
@pytest.mark.slow
def test_a_run_that_has_no_room_left_says_what_it_waits_for_and_goes_on_when_there_is(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    out, console = tmp_path / "out", Lines()
    ray.shutdown()

    def wait_for_line(words: str) -> None:
        wait_until(lambda: any(words in line for line in console.lines), 120, words)

    def exchange_nodes(cluster: Cluster) -> None:
        wait_until(lambda: steps_done(out, per_epoch=3) >= 4, 120, "step 4")
        cluster.kill_node(cluster.nodes[1])
        wait_for_line(
            "waiting for resources: 2 ranks need 1 CPUs each, and the cluster has 1 node with 1 CPUs"
        )
        cluster.add_node(1)
        wait_for_line("resources are available again")

    with ray_cluster(1, 1) as cluster, ThreadPoolExecutor() as threads:
        done = threads.submit(exchange_nodes, cluster)
        trainer(cluster).run(job_for(folder), str(out), console)
        done.result()
    assert sum(line.startswith("waiting for resources") for line in console.lines) == 1
    assert_equal(out, whole)


def test_room_that_is_lost_and_found_is_told_once_each() -> None:
    watch, one, two = CapacityMonitor(WorkerGroup(2, Resources(1, 1))), NodeResources(4, 1), NodeResources(8)
    assert watch.update([one, one]) is None
    assert watch.update([one, two]) == (
        "waiting for resources: 2 ranks need 1 CPUs and 1 GPUs each, and the cluster has 1 node with 4 CPUs and 1 GPUs, "
        "1 node with 8 CPUs left; add nodes, or stop and run the same command with fewer --workers"
    )
    assert watch.update([two]) is None
    assert (
        watch.update([one, one, two])
        == "resources are available again: the ranks resume from the last checkpoint"
    )
    assert "the cluster has no node left" in (watch.update([]) or "")


@pytest.mark.fault("training on Ray: SIGKILL of the driver")
@pytest.mark.slow
def test_one_process_goes_on_with_what_two_ranks_began_whose_driver_was_killed(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with ray_cluster(2) as cluster, command(folder, out, cluster) as process:
        wait_until(lambda: steps_done(out, per_epoch=3) >= 4 or process.poll() is not None, 120, "step 4")
        process.kill()
        wait_until(lambda: not ranks_of(cluster.nodes[0]), 60, "the end of the ranks")
    assert 4 <= steps_done(out, per_epoch=3) < 12
    run_training_job(job_for(folder), LocalEngine(num_threads=1), out, SilentConsole())
    expected, got = read(whole), read(out)
    assert got["losses"] == pytest.approx(expected["losses"], rel=RELATIVE)
    left = [name for name in got["files"] if name.startswith(".seen-")]  # the killed driver's
    assert {**got, "losses": 0, "files": sorted({*got["files"]} - {*left})} == {**expected, "losses": 0}


def test_results_may_be_kept_below_a_uri(folder: Path, whole: Path, cluster: Cluster, tmp_path: Path) -> None:
    """No rank writes to that folder but by way of the URI; a second run finds that all is done."""
    out = tmp_path / "far"
    console = Lines()
    result = trainer(cluster).run(job_for(folder), f"file://{out}", console)
    assert result["checkpoint"] == f"{out}/best.safetensors"
    assert json.loads((out / "result.json").read_text()) == result
    ours, theirs = weights(out), weights(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for name in ("counts.json", "quarantine.jsonl"):
        assert (out / name).read_text() == (whole / name).read_text()
    again = Lines()
    trainer(cluster, 1).run(job_for(folder), f"file://{out}", again)
    assert not [line for line in again.lines if line.startswith("epoch")]


def test_what_cannot_be_placed_or_shared_is_refused_before_anything_starts(
    folder: Path, cluster: Cluster, tmp_path: Path
) -> None:
    job = job_for(folder)
    with pytest.raises(PlanError, match="expected a multiple of the 3 ranks that share a batch, got 8"):
        RayTrainer("127.0.0.1:1", 3).run(job, str(tmp_path / "out"), SilentConsole())
    started = time.monotonic()
    with pytest.raises(
        PlanError, match="expected 64 CPUs per worker, got a cluster whose largest node has 2 CPUs"
    ):
        RayTrainer(cluster.address, 2, Resources(64)).run(job, str(tmp_path / "out"), SilentConsole())
    held = job.plan.model_copy(update={"resources": WorkerResources(cpus=3)})
    with pytest.raises(PlanError, match="expected 3 CPUs per worker"):
        RayTrainer(cluster.address, 2).run(
            job.model_copy(update={"plan": held}), str(tmp_path / "out"), SilentConsole()
        )
    with pytest.raises(PlanError, match=r"expected room for 8 workers of 1 CPUs.*4 of them never fit"):
        RayTrainer(cluster.address, 8).run(job, str(tmp_path / "out"), SilentConsole())
    assert time.monotonic() - started < HANG_S
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(PlanError, match="expected a folder shared by all nodes"):
        check_shared_folder(str(tmp_path), ".seen-by-nobody", "node 1")


def test_a_job_whose_model_is_refused_neither_starts_ray_nor_makes_its_output_folder(
    folder: Path, tmp_path: Path
) -> None:
    job = job_for(folder).model_copy(update={"fine_tune_from": "layr4"})
    with pytest.raises(ModelError, match="fine_tune_from: expected a block"):
        RayTrainer("127.0.0.1:1", 1).run(job, str(tmp_path / "out"), SilentConsole())
    assert list(tmp_path.iterdir()) == []


def test_without_a_number_there_are_as_many_ranks_as_fit_and_can_share_a_batch(folder: Path) -> None:
    job = job_for(folder)
    assert [max_ranks(job, most) for most in (1, 2, 3, 4, 7, 9)] == [1, 2, 2, 4, 4, 8]


def test_an_error_of_one_rank_ends_the_run_and_is_told(
    folder: Path, cluster: Cluster, tmp_path: Path
) -> None:
    """One of the pictures cannot be read, which trying again would not mend: the ranks are not started anew."""
    job = job_for(folder)
    errors = job.plan.errors.model_copy(update={"on_error": "raise"})
    strict = job.model_copy(update={"plan": job.plan.model_copy(update={"errors": errors})})
    console = Lines()
    with pytest.raises(SampleError, match=r"read of '.*\.jpg': expected .* bytes as indexed"):
        trainer(cluster).run(strict, str(tmp_path / "out"), console)
    assert sum(line.startswith("training on") for line in console.lines) == 1
