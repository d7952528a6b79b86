"""A run that is killed at any step gives the result of an uninterrupted one: bit-identical weights, and metrics except times."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import warm
import yaml
from lightwell.models.training.checkpoint import (
    LAST_NAME,
    content_digest,
    read_metadata,
    read_progress,
)
from lightwell.models.training.checkpoint_timer import CheckpointTimer
from lightwell.models.training.job import Classify
from lightwell.models.training.optim import CheckpointEvery
from lightwell.pipeline.errors import ModelError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import assert_job_resumes
from lightwell.workers.local import run_training_job
from patience import HANG_S
from pictures import make_folder
from ranks import train
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("undrawn")
SECONDS = ("seconds", "images_per_s")


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job with dropout, trained BatchNorm, augmentation, MixUp, images that grow, class weights and an unreadable image."""
    photos = make_folder(tmp_path / "photos", num_images=30)
    build_index(photos, fractions={"train": 0.6, "val": 0.2, "test": 0.2}).save(tmp_path / "index.parquet")
    for path in sorted(photos.rglob("*.jpg"))[::13]:
        path.write_bytes(path.read_bytes()[:300])
    content = {
        "plan": {
            "index": "index.parquet",
            "preprocess": [{"Resize": {"height": 32, "width": 32}}],
            "augment": ["HorizontalFlip"],
            "mix": {"kind": "MixUp"},
            "progressive_size": [{"until_epoch": 1, "size": 24}],
            "batch": {"size": 4},
            "errors": {"max_bad_share": 0.5},
        },
        "model": {"name": "mobilenet_v3_small", "weights": "none"},
        "fine_tune_from": "all",
        "epochs": 2,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "class_weights": "balanced",
        "label_smoothing": 0.1,
        "checkpoint_every": {"steps": 2},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "job.yaml"


@pytest.fixture
def job(job_file: Path) -> Classify:
    return load_job(job_file, default="classify")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_seconds(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in record.items() if name not in (*SECONDS, "checkpoint")}
    return {n: without_seconds(v) if isinstance(v, Mapping) else v for n, v in kept.items()}


def weights_of(path: Path) -> str:
    """Digest all tensors of a checkpoint, those of the optimiser among them."""
    return content_digest(load_file(path), {})


def outcome_of(out: Path, _: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the results of a run, without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": {kind: weights_of(out / f"{kind}.safetensors") for kind in ("best", "checkpoint")},
        "metrics": [without_seconds(line) for line in lines],
        "result": without_seconds(json.loads((out / "result.json").read_text())),
        "counts": json.loads((out / "counts.json").read_text()),
        "quarantine": (out / "quarantine.jsonl").read_text(),
        "files": sorted(path.name for path in out.iterdir()),
    }


def run_until(job_file: Path, out: Path, stop_after: int) -> int | None:
    """Run in a separate process that kills itself after a number of batches."""
    process = warm.start(train, job_file, out, stop_after)
    process.join(HANG_S)
    return process.exitcode


def run_here(job: Classify, out: Path) -> dict[str, Any]:
    run_training_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return outcome_of(out)


@pytest.mark.fault("SIGKILL five times while training", times=5)
@pytest.mark.slow
def test_a_run_that_is_killed_repeatedly_gives_the_result_of_an_uninterrupted_one(
    job_file: Path, job: Classify, tmp_path: Path
) -> None:
    """SIGKILL before, after and between checkpoints, in training, validation and test."""
    whole = run_here(job, tmp_path / "whole")
    for stop_after in (1, 3, 4, 6, 6):
        assert run_until(job_file, tmp_path / "out", stop_after) == -signal.SIGKILL
    assert run_until(job_file, tmp_path / "out", -1) == 0
    assert outcome_of(tmp_path / "out") == whole


def test_a_run_that_is_stopped_after_any_batch_gives_the_result_of_an_uninterrupted_one(
    job: Classify, tmp_path: Path
) -> None:
    small = job.model_copy(update={"epochs": 1})
    assert_job_resumes(small, LocalEngine(num_threads=1), tmp_path / "runs", outcome=outcome_of)


def test_the_checkpoint_interval_does_not_affect_the_result(job: Classify, tmp_path: Path) -> None:
    outcomes = []
    for steps in (1, 3, None):
        every = CheckpointEvery(steps=steps, seconds=None)
        outcomes.append(
            run_here(job.model_copy(update={"checkpoint_every": every}), tmp_path / f"every-{steps}")
        )
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_training_on_features_resumes_and_reads_only_what_it_has_no_features_of(
    job: Classify, tmp_path: Path
) -> None:
    plan = job.plan.model_copy(update={"mix": None, "progressive_size": None})
    spec = {**job.model_dump(), "plan": plan, "fine_tune_from": None, "feature_passes": 1, "epochs": 2}
    frozen = Classify.model_validate({**spec, "model": {"name": "mobilenet_v3_small", "weights": "none"}})

    def outcome_without_counts(out: Path, result: Any) -> Any:
        return {**outcome_of(out, result), "counts": None}

    assert_job_resumes(frozen, LocalEngine(num_threads=1), tmp_path / "runs", outcome=outcome_without_counts)


def test_a_checkpoint_holds_the_progress_of_its_run(job: Classify, tmp_path: Path) -> None:
    class Stop(SilentConsole):
        def track(self, batches: Any, label: str) -> Any:
            for number, batch in enumerate(batches):
                if (label, number) == ("train", 3):
                    raise KeyboardInterrupt
                yield batch

    with pytest.raises(KeyboardInterrupt):
        run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", Stop())
    metadata, header = read_metadata(tmp_path / "out" / LAST_NAME)
    progress = read_progress(tmp_path / "out" / LAST_NAME, header)
    assert (metadata.history, progress.step, progress.num_read) == ((), 2, 8)
    assert (progress.position["epoch"], progress.position["step"]) == (0, 2)
    assert progress.counts["read"] == 8
    assert job.resume_point(tmp_path / "out").position == progress.position


@pytest.mark.fault("a flipped bit in a checkpoint: it is refused")
def test_a_checkpoint_with_a_flipped_bit_is_refused(job: Classify, tmp_path: Path) -> None:
    job = job.model_copy(update={"epochs": 1})
    run_here(job, tmp_path / "out")
    path = tmp_path / "out" / LAST_NAME
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is damaged: its content does not match its digest"):
        run_training_job(job, LocalEngine(num_threads=1), tmp_path / "out", SilentConsole())


def test_the_checkpoint_timer_counts_steps_or_seconds_and_limits_the_overhead() -> None:
    pace = CheckpointTimer(CheckpointEvery(steps=2, seconds=None))
    assert [pace.is_due(), pace.is_due()] == [False, True]
    with pace.measure_write():
        pass
    assert not pace.is_due()
    quick = CheckpointTimer(CheckpointEvery(seconds=0.01))
    time.sleep(0.02)
    assert quick.is_due()
    with quick.measure_write():
        time.sleep(0.2)  # so the next is due in ten seconds
    time.sleep(0.02)
    assert not quick.is_due()
