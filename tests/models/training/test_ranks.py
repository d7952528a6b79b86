"""Data-parallel ranks: same result and counts as one process."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
import yaml
from host_waits import write_waits_of_rank
from lightwell.models.training.checkpoint import load_model, read_tensors
from lightwell.models.training.checkpoint_timer import CheckpointTimer
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.optim import CheckpointEvery
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.data_parallel import check_data_parallel
from lightwell.workers.local import run_training_job
from patience import HANG_S
from pictures import make_folder
from ranks import train_rank

pytestmark = pytest.mark.usefixtures("undrawn")
RELATIVE = 1e-9
"""Tolerance of float64 losses after some training steps, for sums in another order."""


def write_job(folder: Path, **changes: Any) -> Path:
    """Nineteen training images in batches of eight, so that the last batch has three; two are unreadable."""
    plan = {
        "index": "index.parquet",
        "preprocess": [{"Resize": {"height": 32, "width": 32}}],
        "augment": ["HorizontalFlip"],
        "batch": {"size": 8},
        "errors": {"max_bad_share": 0.5},
    }
    plan |= changes.pop("plan", {})
    content = {
        "plan": plan,
        "model": {"name": "mobilenet_v3_small", "weights": "none"},
        "fine_tune_from": "all",
        "epochs": 2,
        "optimizer": {"name": "sgd", "lr": 0.05},
        "class_weights": "balanced",
        "label_smoothing": 0.1,
        "checkpoint_every": {"steps": 1},
        "precision": "float64",
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ranks")
    photos = make_folder(root / "photos", num_images=32)
    build_index(photos, fractions={"train": 0.6, "val": 0.22, "test": 0.18}).save(root / "index.parquet")
    for path in sorted(photos.rglob("*.jpg"))[::15]:
        path.write_bytes(path.read_bytes()[:300])
    return root


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_ranks(
    job_file: Path, out: Path, num_ranks: int, *, dies: int = 0, stop_after: int = -1
) -> list[int | None]:
    """Run ranks in separate processes, one of which may kill itself after some batches."""
    out.mkdir(parents=True, exist_ok=True)
    meet = out.parent / f"{out.name}-meet-{num_ranks}-{stop_after}"
    processes = [
        warm.start(
            train_rank,
            *(job_file, out, meet, rank, num_ranks, stop_after if rank == dies else -1),
            is_quiet=stop_after >= 0,
        )
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.join(HANG_S)
    return [process.exitcode for process in processes]


def run_alone(job_file: Path, out: Path) -> dict[str, Any]:
    run_training_job(load_job(job_file, default="classify"), LocalEngine(num_threads=1), out, SilentConsole())
    return read(out)


def read(out: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    tested = [result["test"], *([result["average"]["test"]] if "average" in result else [])]
    return {
        "losses": [each["loss"] for each in (*lines, *tested)],
        "images": [(line["epoch"], line["split"], line["images"], line["ignored"]) for line in lines],
        "counts": json.loads((out / "counts.json").read_text()),
        "quarantine": (out / "quarantine.jsonl").read_text(),
        "files": sorted(path.name for path in out.iterdir()),
    }


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_model(out / "checkpoint.safetensors").model.state_dict()


def assert_alike(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got["losses"] == pytest.approx(expected["losses"], rel=RELATIVE)
    assert {**got, "losses": None} == {**expected, "losses": None}


JOBS = {
    "a plain head": {"fine_tune_from": None, "model": {"name": "timm:test_resnet", "weights": "none"}},
    "batch normalisation, dropout and mixed images": {"plan": {"mix": {"kind": "CutMix"}}},
    "accumulated, clipped and averaged": {
        "model": {"name": "timm:test_resnet", "weights": "none"},
        "accumulate": 2,
        "clip_norm": 0.5,
        "ema": {},
        "average": 2,
    },
    "cached features": {
        "fine_tune_from": None,
        "model": {"name": "timm:test_resnet", "weights": "none"},
        "feature_passes": 1,
    },
}


@pytest.mark.parametrize("name", JOBS)
def test_two_ranks_give_the_result_of_one_process(name: str, folder: Path, tmp_path: Path) -> None:
    job_file = write_job(folder, **JOBS[name])
    alone = run_alone(job_file, tmp_path / "alone")
    assert run_ranks(job_file, tmp_path / "ranks", 2) == [0, 0]
    assert_alike(read(tmp_path / "ranks"), alone)
    ours, theirs = weights(tmp_path / "ranks"), weights(tmp_path / "alone")
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=1e-2, atol=1e-3, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.fault("SIGKILL of two ranks while training")
@pytest.mark.slow
@pytest.mark.parametrize(("begun_by", "changes"), [(2, {}), (1, {}), (2, {"ema": {}, "average": 2})])
def test_two_ranks_resume_a_run_whose_ranks_were_killed(
    begun_by: int, changes: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    """The run was begun by two ranks, the second of which died in the second epoch, or by one process."""
    job_file = write_job(folder, **changes)
    assert run_ranks(job_file, tmp_path / "whole", 2) == [0, 0]
    codes = run_ranks(job_file, tmp_path / "out", begun_by, dies=begun_by - 1, stop_after=5)
    assert codes[-1] == -signal.SIGKILL
    assert codes[0] != 0
    left = load_job(job_file, default="classify").resume_point(tmp_path / "out")
    assert (left.position["epoch"], left.position["step"]) == (1, 1)
    assert run_ranks(job_file, tmp_path / "out", 2) == [0, 0]
    if begun_by == 1:
        assert_alike(read(tmp_path / "out"), read(tmp_path / "whole"))
        return
    assert read(tmp_path / "out") == read(tmp_path / "whole")
    for kind in ("checkpoint", "best", *(["average"] if changes else [])):
        ours, theirs = (read_tensors(tmp_path / run / f"{kind}.safetensors") for run in ("out", "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_batches_that_ranks_cannot_share_are_refused(folder: Path) -> None:
    @dataclass(frozen=True)
    class Theirs:
        plan: Plan
        view: View = View()  # noqa: RUF009

        def run(self, feed: object, context: object) -> dict[str, object]:
            return {}

    job = load_job(write_job(folder), default="classify")
    check_data_parallel(job, 4)
    check_data_parallel(Theirs(job.plan), 1)
    with pytest.raises(PlanError, match="expected 1 for Theirs, got 2; it has no `check_ranks`"):
        check_data_parallel(Theirs(job.plan), 2)
    with pytest.raises(PlanError, match="expected a multiple of the 3 ranks that share a batch, got 8"):
        check_data_parallel(job, 3)
    skipping = job.plan.errors.model_copy(update={"on_error": "skip"})
    job = job.model_copy(update={"plan": job.plan.model_copy(update={"errors": skipping})})
    with pytest.raises(PlanError, match="expected replace or raise with 2 ranks"):
        check_data_parallel(job, 2)


def test_no_rank_waits_for_a_deferred_step(tmp_path: Path) -> None:
    ranks = range(2)
    processes = [warm.start(write_waits_of_rank, tmp_path, tmp_path / "meet", rank, 2) for rank in ranks]
    for process in processes:
        process.join(HANG_S)
    found = [(tmp_path / f"{rank}.txt").read_text() for rank in ranks]
    assert found == ["[], then tolist"] * 2


def test_ranks_agree_that_a_checkpoint_is_due_after_the_same_step() -> None:
    """By steps each knows; by time the main rank says, on GPUs after every 50 steps."""
    gpu = DistributedContext(1, 2, torch.device("cuda"))
    timer = CheckpointTimer(CheckpointEvery(steps=3, seconds=1e-9), gpu)
    assert [timer.is_due() for _ in range(4)] == [False, False, True, True]
    with timer.measure_write():
        pass
    assert not timer.is_due()
