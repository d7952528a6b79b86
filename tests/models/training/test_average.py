"""The mean of the best epochs: their weights, evaluated beside the best, the same wherever a run was stopped."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
from lightwell import LocalEngine, load_model, run_batch_job
from lightwell.models.inference.evaluate import Evaluate
from lightwell.models.training.checkpoint import read_metadata, read_tensors
from lightwell.models.training.optim import ranked_epochs
from lightwell.models.training.run.average import mean_weights
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.local import run_training_job
from patience import HANG_S
from ranks import train_until_written, write_refusal_of_rank
from tasks import multilabel_set, write_job

ENGINE = LocalEngine(num_threads=1)
SMALL: dict[str, Any] = {
    "average": 2,
    "epochs": 3,
    "plan": {"batch": {"size": 8}, "mix": None},
    "optimizer": {"lr": 0.02},
    "fine_tune_from": "layer4",
    "feature_passes": 0,
    "checkpoint_every": {"steps": 4},
}
"""Two steps an epoch, on features, whose epochs are not all followed by a checkpoint; with an average over steps, too."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("average")
    multilabel_set(root, num_train=14, num_other=4)
    return root


@pytest.fixture(scope="module")
def out(folder: Path) -> Path:
    run_training_job(job(folder), ENGINE, folder / "out")
    return folder / "out"


def job(folder: Path, **changes: Any) -> Any:
    return load_job(write_job(folder, "multilabel", **{**SMALL, **changes}), default="multilabel")


def test_the_average_is_the_mean_of_the_best_epochs_and_is_evaluated_beside_the_best(
    folder: Path, out: Path, tmp_path: Path
) -> None:
    result = json.loads((out / "result.json").read_text())
    history = read_metadata(out / "checkpoint.safetensors")[0].history
    assert len(history) == 3
    assert result["average"]["epochs"] == ranked_epochs(history, "map")[:2]
    kept = {len(read_metadata(path)[0].history) - 1: path for path in (out / "epochs").iterdir()}
    assert sorted(kept) == sorted(result["average"]["epochs"])
    best, second = (read_tensors(kept[epoch]) for epoch in result["average"]["epochs"])
    found, written = read_tensors(out / "average.safetensors"), read_tensors(out / "best.safetensors")
    for name, tensor in found.items():
        assert torch.equal(best[name], written[name])
        expected = best[name]
        if tensor.is_floating_point():
            expected = ((best[name].double() + second[name].double()) / 2).to(tensor.dtype)
        assert torch.equal(tensor, expected)
    assert not torch.equal(found["fc.weight"], best["fc.weight"])
    evaluation = run_batch_job(
        Evaluate(plan=job(folder).plan, checkpoint=out / "average.safetensors"), ENGINE, tmp_path / "out"
    )
    for name in ("loss", "map", "f1", "f1_at_thresholds"):
        assert evaluation[name] == pytest.approx(result["average"]["test"][name], abs=1e-6)
    assert load_model(out / "average.safetensors").classes == ("blue", "green", "red")


class Stopping(SilentConsole):
    """Console that interrupts a run at the end of its second epoch."""

    def print(self, line: str) -> None:
        if line.startswith("epoch 2/"):
            raise KeyboardInterrupt


def outcome(path: Path) -> Any:
    result = json.loads((path / "result.json").read_text())
    files = ("average.safetensors", "best.safetensors")
    weights = [{name: one.tolist() for name, one in read_tensors(path / file).items()} for file in files]
    epochs = sorted(len(read_metadata(one)[0].history) for one in (path / "epochs").iterdir())
    return weights, epochs, result["average"]["epochs"], result["average"]["test"]["loss"]


def test_a_run_that_stops_within_an_epoch_ends_with_the_same_average(
    folder: Path, out: Path, tmp_path: Path
) -> None:
    """The first checkpoint is due in the second epoch, when the weights of the first are not written yet."""
    with pytest.raises(KeyboardInterrupt):
        run_training_job(job(folder), ENGINE, tmp_path / "out", Stopping())
    metadata, header = read_metadata(tmp_path / "out" / "checkpoint.safetensors")
    assert (len(metadata.history), json.loads(header["progress"])["step"]) == (1, 1)
    gone = tmp_path / "gone"
    shutil.copytree(tmp_path / "out", gone)
    run_training_job(job(folder), ENGINE, tmp_path / "out")
    assert outcome(tmp_path / "out") == outcome(out)
    for path in (gone / "epochs").iterdir():
        path.unlink()
    job(folder)
    run = (folder / "multilabel.yaml", gone, tmp_path / "meet")
    ranks = [warm.start(write_refusal_of_rank, *run, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.join(HANG_S)
    refusals = [(tmp_path / f"refusal-{rank}").read_text() for rank in range(2)]
    assert refusals[0] == refusals[1]
    assert "ModelError: average: expected the weights of epoch 1 in " in refusals[0]


@pytest.mark.fault("SIGKILL of a training that averages, before it replaces a file", times=4)
@pytest.mark.slow
def test_a_run_that_is_killed_between_its_files_ends_with_the_same_average(
    folder: Path, out: Path, tmp_path: Path
) -> None:
    """Of weights of epochs, best weights, checkpoint and mean some are newer than the others."""
    job(folder)
    rng, codes = np.random.default_rng(3), [-signal.SIGKILL]
    while codes[-1] and len(codes) < 20:
        process = warm.start(
            train_until_written, folder / "multilabel.yaml", tmp_path / "out", int(rng.integers(3, 10))
        )
        process.join(HANG_S)
        codes.append(process.exitcode)
    assert codes[-1] == 0
    assert codes.count(-signal.SIGKILL) > 3
    assert outcome(tmp_path / "out") == outcome(out)


def test_the_mean_keeps_types_and_the_counters_of_the_first(out: Path) -> None:
    paths = sorted((out / "epochs").iterdir())
    mean, first = mean_weights(paths), read_tensors(paths[0])
    assert {name: tensor.dtype for name, tensor in mean.items()} == {
        name: tensor.dtype for name, tensor in first.items()
    }
    counters = [name for name in mean if name.endswith("num_batches_tracked")]
    assert counters
    assert all(torch.equal(mean[name], first[name]) for name in counters)


def test_an_average_of_one_epoch_is_refused(folder: Path) -> None:
    with pytest.raises(PlanError, match="average"):
        job(folder, average=1)
