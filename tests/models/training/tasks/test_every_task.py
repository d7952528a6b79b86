"""What every task keeps: ranks learn what one process learns, a diverging run stops, and others can add tasks."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
from lightwell.models.training.checkpoint import load_model, read_tensors
from lightwell.models.training.prepare import build_trainable
from lightwell.models.training.tasks.jobs import Train
from lightwell.pipeline.errors import PlanError, RunError
from lightwell.pipeline.jobs.job_file import load_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from patience import HANG_S
from ranks import train, train_rank
from tasks import mask_set, multilabel_set, write_job

pytestmark = pytest.mark.usefixtures("undrawn")
SETS = {"multilabel": multilabel_set, "segment": mask_set}
RELATIVE = 1e-9
"""Tolerance of float64 losses after some training steps, for sums in another order."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A set of each task, with a picture that cannot be read."""
    found = {}
    for name, make in SETS.items():
        found[name] = tmp_path_factory.mktemp(name)
        make(found[name], num_train=11, num_other=3)
        damaged = found[name] / "train-6.png"
        damaged.write_bytes(damaged.read_bytes()[:200])
    return found


def run(job: Any, out: Path) -> dict[str, Any]:
    return dict(run_training_job(job, LocalEngine(num_threads=1), out, SilentConsole()))


@pytest.mark.fault("SIGKILL twice or more while training each task", times=4)
@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_run_that_is_killed_at_random_ends_with_the_weights_of_one_that_was_not(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    path = write_job(folders[name], name)
    whole = run(load_job(path, default="classify"), tmp_path / "whole")
    out, rng, codes = tmp_path / "out", np.random.default_rng(len(name)), [-signal.SIGKILL]
    while codes[-1] and len(codes) < 20:
        process = warm.start(train, path, out, int(rng.integers(1, 5)))
        process.join(HANG_S)
        codes.append(process.exitcode)
    assert codes[-1] == 0
    assert codes.count(-signal.SIGKILL) > 2
    for kind in ("best", "checkpoint"):
        ours, theirs = (read_tensors(folder / f"{kind}.safetensors") for folder in (out, tmp_path / "whole"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert json.loads((out / "result.json").read_text())["test"]["loss"] == whole["test"]["loss"]


@pytest.mark.parametrize("name", SETS)
def test_two_ranks_learn_what_one_process_learns(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    """Eleven training pictures in batches of four: the last has three, and one row of padding."""
    path = write_job(folders[name], name, precision="float64", optimizer={"name": "sgd", "lr": 0.05})
    alone = run(load_job(path, default="classify"), tmp_path / "alone")
    out = tmp_path / "ranks"
    out.mkdir()
    processes = [warm.start(train_rank, path, out, tmp_path / "meet", rank, 2, -1) for rank in range(2)]
    for process in processes:
        process.join(HANG_S)
    assert [process.exitcode for process in processes] == [0, 0]
    shared = json.loads((out / "result.json").read_text())
    assert shared["test"]["loss"] == pytest.approx(alone["test"]["loss"], rel=RELATIVE)
    assert shared["validation"]["loss"] == pytest.approx(alone["validation"]["loss"], rel=RELATIVE)
    assert (shared["test"]["images"], shared["test"]["ignored"]) == (3, 0)
    ours, theirs = (
        load_model(path / "checkpoint.safetensors").model.state_dict() for path in (out, tmp_path / "alone")
    )
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, rtol=1e-2, atol=1e-3, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", SETS)
def test_a_loss_that_is_not_finite_stops_and_the_last_checkpoint_is_kept(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = load_job(write_job(folders[name], name, epochs=2), default="classify")
    model = build_trainable(job, 3)
    bad = next(iter(model.state_dict()))
    forward, calls = type(model).forward, []

    def diverging(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = forward(module, images)
        calls.append(module.training)
        return scores * math.nan if sum(calls) > 4 and module.training else scores

    monkeypatch.setattr(type(model), "forward", diverging)
    with pytest.raises(RunError, match=r"expected a finite loss, got nan at step \d"):
        run(job, tmp_path / "out")
    kept = read_tensors(tmp_path / "out" / "checkpoint.safetensors")
    assert kept[bad].isfinite().all()
    assert (tmp_path / "out" / "best.safetensors").exists()


THEIRS = """
import torch
from lightwell.models.training.tasks.task import MetricValues, Task
from lightwell.models.training.train_batch import Targets


class SquaredError:
    def totals(self, scores, batch):
        kept = ~batch.targets.isnan()
        return (scores[kept, 0] - batch.targets[kept]).square().sum().view(1)

    def weights(self, batch):
        return (~batch.targets.isnan()).sum().clamp_min(1).view(1)


class Explained:
    def __init__(self):
        self.sums = {"moments": torch.zeros(4, dtype=torch.float64)}

    def update(self, scores, batch):
        kept = ~batch.targets.isnan() & ~batch.replaced
        truth, error = batch.targets[kept].double(), (scores[kept, 0] - batch.targets[kept]).double()
        self.sums["moments"] += torch.stack(
            [torch.tensor(float(len(truth))), truth.sum(), truth.square().sum(), error.square().sum()]
        )

    def compute(self, dist, num_read):
        count, total, squares, errors = dist.all_reduce(self.sums["moments"]).tolist()
        spread = squares - total**2 / count
        return MetricValues(int(count), num_read - int(count), {"r2": 1 - errors / spread})


class CountLabels(Task):
    classes = ("number",)
    metric_names = ("r2",)

    def __init__(self, index, train_rows, *, scale=1.0):
        self.scale = scale

    def targets(self, batch):
        found = self.scale * batch.label_sets.sum(dim=1).float()
        return Targets(found.masked_fill(found < 0, float("nan")))

    def criterion(self, *, training, like):
        return SquaredError()

    def running_metrics(self, num_rows=None):
        return Explained()
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "their_tasks.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield
    sys.modules.pop("their_tasks", None)


@pytest.mark.usefixtures("theirs")
def test_a_regression_of_another_package_is_trained_and_loaded(tmp_path: Path) -> None:
    """The number of bright channels is learned as a number."""
    multilabel_set(tmp_path, num_train=16, num_other=6)
    content = {
        "job": "train",
        "task": "their_tasks:CountLabels",
        "options": {"scale": 0.5},
        "monitor": "r2",
        "ema": None,
    }
    removed = {"positive_weights": None, "label_smoothing": None}
    path = write_job(tmp_path, "multilabel", **content, plan={"mix": None}, epochs=8)
    text = "".join(
        line for line in path.read_text().splitlines(True) if line.partition(":")[0] not in removed
    )
    path.write_text(text)
    job = load_job(path, default="classify", allow_import=("their_tasks",))
    assert isinstance(job, Train)
    result = run(job, tmp_path / "out")
    assert result["test"]["r2"] > 0.5  # of a constant prediction: at most 0
    loaded = load_model(tmp_path / "out" / "best.safetensors")
    assert (loaded.classes, loaded.metadata["task"]) == (("number",), "train")
    with pytest.raises(PlanError, match=r"task: expected an allowed name, .* --allow-import their_tasks"):
        load_job(path, default="classify")
    with pytest.raises(PlanError, match="options: expected those of their_tasks:CountLabels"):
        job.model_copy(update={"options": {"scales": 2}}).check()
    with pytest.raises(PlanError, match="task: expected a class of"):
        job.model_copy(update={"task": "their_tasks:SquaredError"}).check()
