"""The commands: a service in the foreground, and trainings with other learning rates that attach to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from checkpoints import steps_done
from clusters import Cluster, wait_until
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from pictures import make_folder

pytestmark = pytest.mark.ray

RATES = (0.1, 0.03, 0.01, 0.003)
EPOCHS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for training and validation, and a job file for each learning rate, with and without the service."""
    root = tmp_path_factory.mktemp("sweep")
    photos = make_folder(root / "photos", num_images=32)
    build_index(photos, fractions={"train": 0.6, "val": 0.2, "test": 0.2}).save(root / "index.parquet")
    plan = {
        "index": "index.parquet",
        "preprocess": [{"Resize": {"height": 32, "width": 32}}],
        "augment": ["HorizontalFlip"],
        "batch": {"size": 4},
    }
    (root / "plan.yaml").write_text(yaml.safe_dump(plan))
    for rate in RATES:
        job = {
            "plan": "plan.yaml",
            "model": {"name": "mobilenet_v3_small", "weights": "none"},
            "fine_tune_from": "all",
            "epochs": EPOCHS,
            "optimizer": {"name": "sgd", "lr": rate},
        }
        (root / f"alone-{rate}.yaml").write_text(yaml.safe_dump(job))
        (root / f"fed-{rate}.yaml").write_text(yaml.safe_dump({**job, "feed": f"service://sweep/lr-{rate}"}))
    return root


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lightwell.cli", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)


def run(*arguments: object, code: int = 0) -> str:
    done = warm.run(warm.COMMAND, *arguments)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def learned(out: Path) -> list[Any]:
    """What a training measured after each epoch and in the end, seconds left out."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    counts = json.loads((out / "counts.json").read_text())
    test = {name: value for name, value in result["test"].items() if name not in ("seconds", "images_per_s")}
    return [[line["loss"] for line in lines], test, result["best_epoch"], counts]


def status(cluster: Cluster, name: str) -> Any:
    return json.loads(run("services", "status", name, "--address", cluster.address, "--json"))


@pytest.mark.slow
def test_a_sweep_of_four_decodes_every_image_once_and_ends_as_it_would_alone(
    cluster: Cluster, folder: Path, tmp_path: Path
) -> None:
    job = folder / f"fed-{RATES[0]}.yaml"
    service = start(
        "serve",
        job,
        "--name",
        "sweep",
        "--address",
        cluster.address,
        "--workers",
        2,
        "--consumers",
        len(RATES),
    )
    try:
        assert service.stdout is not None
        assert "feed: service://sweep` into job files" in service.stdout.readline()
        trainings = [
            start(
                "train",
                folder / f"fed-{rate}.yaml",
                "--out",
                tmp_path / f"fed-{rate}",
                "--address",
                cluster.address,
            )
            for rate in RATES
        ]
        for training in trainings:
            out, err = training.communicate(timeout=300)
            assert training.returncode == 0, (out, err)
        found = status(cluster, "sweep")
        num_train = len(Index.load(folder / "index.parquet").rows("train"))
        num_batches = EPOCHS * -(-num_train // 4)
        assert (found["num_batches"], found["made"], found["made_again"]) == (num_batches, num_batches, 0)
        assert found["samples"] == EPOCHS * num_train
        told = run("services", "status", "sweep", "--address", cluster.address)
        assert all(f"lr-{rate}" in told for rate in RATES)
        assert "sweep: " in run("services", "ls", "--address", cluster.address)
        service.send_signal(signal.SIGINT)
        out, err = service.communicate(timeout=60)
        assert (service.returncode, err) == (0, "")
        assert "stopped sweep" in out
    finally:
        service.kill()
        service.communicate()
    for rate in RATES:
        run("train", folder / f"alone-{rate}.yaml", "--out", tmp_path / f"alone-{rate}", "--threads", 1)
        assert learned(tmp_path / f"fed-{rate}") == learned(tmp_path / f"alone-{rate}")


@pytest.mark.fault("SIGKILL a training that a service feeds")
@pytest.mark.slow
def test_a_fed_training_that_is_killed_and_run_again_learns_what_it_learns_alone(
    folder: Path, tmp_path: Path
) -> None:
    """The service starts a cluster of its own, and tells the address."""
    fed, out = folder / f"fed-{RATES[0]}.yaml", tmp_path / "fed"
    often = {"checkpoint_every": {"steps": 1}, "epochs": 4}
    for path in (fed, folder / f"alone-{RATES[0]}.yaml"):
        (tmp_path / path.name).write_text(
            yaml.safe_dump({**yaml.safe_load(path.read_text()), **often, "plan": str(folder / "plan.yaml")})
        )
    service = start("serve", tmp_path / fed.name, "--name", "sweep", "--workers", 1)
    try:
        assert service.stdout is not None
        told = service.stdout.readline()
        address = told.split("--address ")[1].strip()
        train = ("train", tmp_path / fed.name, "--out", out, "--address", address)
        victim = start(*train)
        wait_until(lambda: steps_done(out, per_epoch=5) >= 7 or victim.poll() is not None, 120, "seven steps")
        victim.kill()
        victim.communicate()
        assert 7 <= steps_done(out, per_epoch=5) < 4 * 5
        run(*train)
        service.send_signal(signal.SIGINT)
        assert "stopped sweep" in service.communicate(timeout=60)[0]
        assert service.returncode == 0
    finally:
        service.kill()
        service.communicate()
    run("train", tmp_path / f"alone-{RATES[0]}.yaml", "--out", tmp_path / "alone", "--threads", 1)
    assert learned(out) == learned(tmp_path / "alone")


def test_a_detached_service_lives_on_and_wrong_requests_end_with_one_line(
    cluster: Cluster, folder: Path, tmp_path: Path
) -> None:
    here = ("--address", cluster.address)
    served = run(
        "serve",
        folder / "plan.yaml",
        "--name",
        "lives",
        "--epochs",
        EPOCHS,
        "--workers",
        1,
        "--detach",
        "--json",
        *here,
    )
    assert json.loads(served)["view"]["num_epochs"] == EPOCHS
    try:
        assert status(cluster, "lives")["made"] == 0
        fed = folder / f"fed-{RATES[0]}.yaml"
        wanted = "expected one of ['lives'], got 'sweep'"
        assert wanted in run("train", fed, "--out", tmp_path / "out", *here, code=2)
        other = yaml.safe_load(fed.read_text())
        other.update(feed="service://lives", epochs=EPOCHS + 1)
        (folder / "other.yaml").write_text(yaml.safe_dump(other))
        told = run("train", folder / "other.yaml", "--out", tmp_path / "out", *here, code=2)
        assert "epochs 0 to 2 are read here, 0 to 1 are served" in told
        told = run("train", fed, "--out", tmp_path / "out", "--engine", "ray", *here, code=2)
        assert "got --engine; pass it to `lightwell serve`" in told
        assert "whose view is served" in run("serve", fed, "--name", "x", "--epochs", 2, code=2)
        assert "got none: a cluster" in run("serve", folder / "plan.yaml", "--name", "x", "--detach", code=2)
    finally:
        assert "stopped lives" in run("services", "stop", "lives", *here)
    assert "no service is running" in run("services", "ls", *here)
