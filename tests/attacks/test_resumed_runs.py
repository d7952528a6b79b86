"""The folder of a training that goes on, when somebody else has written to it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightwell import LightwellError, build_index
from lightwell.models.training.checkpoint import BEST_NAME, LAST_NAME, content_digest
from lightwell.models.training.job import Classify
from lightwell.models.training.optimization.schedule import LRSchedule
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.outputs.manifest import MANIFEST_NAME
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder
from safetensors import safe_open
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan, and what one epoch of it left."""
    folder = tmp_path_factory.mktemp("trained")
    build_index(make_folder(folder / "photos")).save(folder / "index.parquet")
    plan = Plan.model_validate(
        {
            "index": folder / "index.parquet",
            "preprocess": [{"Resize": {"height": 32, "width": 32}}],
            "batch": {"size": 4},
        }
    )
    run_training_job(job_of(plan, 1), LocalEngine(num_threads=1), folder / "out")
    return plan, folder / "out"


def job_of(plan: Plan, epochs: int) -> Classify:
    model = ModelSpec(name="timm:test_resnet", weights="none")
    return Classify(plan=plan, model=model, epochs=epochs, schedule=LRSchedule(kind="constant"))


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Change tensors and progress of a checkpoint, and write the digest that belongs to it."""
    with safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    progress = json.loads(header["progress"])
    change(tensors, progress)
    header["progress"] = json.dumps(progress)
    header["digest"] = content_digest(tensors, header)
    save_file(tensors, path, metadata=header)


def set_tensor(name: str, value: Any) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    def change(tensors: dict[str, torch.Tensor], _: dict[str, Any]) -> None:
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value(tensors.get(name)) if callable(value) else value

    return change


def set_progress(**values: Any) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    return lambda _, progress: progress.update(values)


def set_position(**values: Any) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    return lambda _, progress: progress["position"].update(values)


TAMPERED: dict[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], None]] = {
    "moments of another shape": set_tensor("optimizer.0.exp_avg", torch.zeros(3)),
    "moments of one number": set_tensor("optimizer.0.exp_avg", torch.zeros(())),
    "moments that are NaN": set_tensor("optimizer.0.exp_avg", lambda old: old * math.nan),
    "moments that are negative squares": set_tensor("optimizer.0.exp_avg_sq", lambda old: old - 1),
    "moments that are whole numbers": set_tensor("optimizer.0.exp_avg", lambda old: old.long()),
    "moments that are missing": set_tensor("optimizer.0.exp_avg", None),
    "steps in a list": set_tensor("optimizer.0.step", torch.ones(7)),
    "a parameter that is not there": set_tensor("optimizer.9999.exp_avg", torch.zeros(3)),
    "a parameter that is no number": set_tensor("optimizer.x.exp_avg", torch.zeros(3)),
    "a negative parameter": set_tensor("optimizer.-1.exp_avg", torch.zeros(3)),
    "state of another name": set_tensor("optimizer.0.momentum_buffer", torch.zeros(3)),
    "weights of another shape": set_tensor("fc.weight", lambda old: old.T.contiguous()),
    "weights that are NaN": set_tensor("fc.weight", lambda old: old * math.nan),
    "weights that are missing": set_tensor("fc.weight", None),
    "counts of another shape": set_tensor("progress.confusion", torch.zeros(5, dtype=torch.int64)),
    "counts that are negative": set_tensor("progress.confusion", torch.full((4,), -1)),
    "a step below 0": set_progress(step=-1),
    "a step behind the epoch": set_progress(step=10**6),
    "a step beyond all numbers": set_progress(step=10**30),
    "a step in words": set_progress(step="1"),
    "a loss that is NaN": set_progress(loss=math.nan),
    "a loss in words": set_progress(loss="low"),
    "counts of images in words": set_progress(counts={"read": "many"}),
    "counts of images as a list": set_progress(counts=[1]),
    "progress of other names": set_progress(evil=1),
    "a position that is a list": set_progress(position=[1]),
    "a position without a place": set_progress(position={}),
    "a position of another plan": set_position(plan="0" * 16),
    "a position of another version": set_position(version=99),
    "a position in another epoch": set_position(epoch=0),
    "a position at another step": set_position(step=1),
    "a position behind all epochs": set_position(epoch=10**9),
    "a position in words": set_position(epoch="1"),
}


@pytest.mark.parametrize("name", list(TAMPERED))
def test_a_tampered_checkpoint_is_not_gone_on_with(
    trained: tuple[Plan, Path], tmp_path: Path, name: str
) -> None:
    """A run's last checkpoint has other state, counts or places, and a digest to match: refused, results stay as they were."""
    plan, done = trained
    out = shutil.copytree(done, tmp_path / "out")
    rewrite(out / LAST_NAME, TAMPERED[name])
    before = {
        path.name: path.read_bytes()
        for path in out.iterdir()
        if path.is_file() and path.name != MANIFEST_NAME
    }
    with pytest.raises(LightwellError) as caught:
        run_training_job(job_of(plan, 2), LocalEngine(num_threads=1), out)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.name in before} == before


def test_an_untouched_checkpoint_is_gone_on_with(trained: tuple[Plan, Path], tmp_path: Path) -> None:
    """The same run without a change goes on, so that the refusals above are of what was changed."""
    plan, done = trained
    out = shutil.copytree(done, tmp_path / "out")
    rewrite(out / LAST_NAME, lambda tensors, progress: None)
    assert run_training_job(job_of(plan, 2), LocalEngine(num_threads=1), out)["epochs"] == 2
    assert (out / BEST_NAME).is_file()
