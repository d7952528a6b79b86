"""Options of the updates in a training job: stages, averages, low-rank updates, autocast, a time budget; all of it resumes."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightwell.models.training.checkpoint import content_digest, load_model, read_tensors
from lightwell.models.training.job import Classify
from lightwell.models.training.optimization.options import UpdateOptions
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder

pytestmark = pytest.mark.usefixtures("undrawn")
RESNET, VIT = ({"name": f"timm:test_{kind}", "weights": "none"} for kind in ("resnet", "vit"))
SECONDS = ("seconds", "images_per_s", "elapsed_s")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Fourteen images train in four batches, four validate in one."""
    root = tmp_path_factory.mktemp("updates")
    photos = make_folder(root / "photos", num_images=25)
    build_index(photos, fractions={"train": 0.6, "val": 0.16, "test": 0.24}).save(root / "index.parquet")
    resize = {"Resize": {"height": 32, "width": 32}}
    return Plan(
        index=root / "index.parquet", preprocess=[resize], augment=["HorizontalFlip"], batch={"size": 4}
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_job(plan: Plan, **keys: Any) -> Classify:
    usual = {
        "model": RESNET,
        "epochs": 2,
        "test_split": None,
        "checkpoint_every": {"steps": 1},
        "monitor": "loss",
    }
    return Classify.model_validate({"plan": plan, **usual, **keys})


def weights_of(path: Path) -> str:
    return content_digest(read_tensors(path), {})


def without_seconds(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in SECONDS}


def outcome_of(out: Path) -> dict[str, Any]:
    """Return weights, average, optimizer state and metrics of a run, without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "tensors": {kind: weights_of(out / f"{kind}.safetensors") for kind in ("best", "checkpoint")},
        "metrics": [without_seconds(line) for line in lines],
    }


class Stop(SilentConsole):
    """Interrupts a run in its n-th batch, of training and validation together."""

    def __init__(self, number: int) -> None:
        self.left = number

    def track(self, batches: Iterable[Any], label: str) -> Iterator[Any]:
        for batch in batches:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield batch


def run(job: Classify, out: Path) -> dict[str, Any]:
    return dict(run_training_job(job, LocalEngine(num_threads=1), out, SilentConsole()))


RESUMED = {
    "average, accumulation and clipping": {
        "fine_tune_from": "all", "ema": {"decay": 0.9}, "accumulate": 3, "clip_norm": 0.1,
        "schedule": "one_cycle",
    },
    "a scaled loss": {"fine_tune_from": "layer4", "precision": "float16"},
    "stages": {
        "unfreeze": [{"epoch": 0, "from": "head"}, {"epoch": 1, "from": "layer4"}], "precision": "bfloat16",
        "optimizer": {"name": "sgd", "lr": 0.01}, "schedule": {"kind": "plateau", "patience": 0},
    },
    "low-rank updates": {"model": VIT, "lora": {"rank": 2}, "ema": {}, "clip_norm": 1.0},
}  # fmt: skip


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_stopped_after_any_batch_ends_as_an_uninterrupted_one(
    name: str, plan: Plan, tmp_path: Path
) -> None:
    """The first job is stopped everywhere, the others within the first epoch and within the second."""
    job = make_job(plan, **RESUMED[name])
    run(job, tmp_path / "whole")
    for number in range(10) if "average," in name else (2, 7):
        out = tmp_path / f"stopped-{number}"
        with pytest.raises(KeyboardInterrupt):
            run_training_job(job, LocalEngine(num_threads=1), out, Stop(number))
        run(job, out)
        assert outcome_of(out) == outcome_of(tmp_path / "whole"), number


def test_the_average_is_validated_and_kept_as_the_best(plan: Plan, tmp_path: Path) -> None:
    job = make_job(plan, fine_tune_from="all", ema={"decay": 0.9}, epochs=1, optimizer={"lr": 0.05})
    result = run(job, tmp_path)
    best = load_model(tmp_path / "best.safetensors").model.state_dict()
    last = read_tensors(tmp_path / "checkpoint.safetensors")
    assert all(torch.equal(best[n], last[f"state.average.{n}"]) for n in best if f"state.average.{n}" in last)
    assert not torch.equal(best["fc.weight"], last["fc.weight"])
    plain = run(make_job(plan, fine_tune_from="all", epochs=1, optimizer={"lr": 0.05}), tmp_path / "plain")
    assert plain["validation"]["loss"] != result["validation"]["loss"]
    trained = load_model(tmp_path / "plain" / "checkpoint.safetensors").model.state_dict()
    assert all(torch.equal(last[name], tensor) for name, tensor in trained.items())  # training is the same


def test_stages_freeze_and_unfreeze_as_they_say(plan: Plan, tmp_path: Path) -> None:
    stages = [{"epoch": 0, "from": "head"}, {"epoch": 1, "from": "layer4"}]
    snapshots = []
    for epochs in (1, 2):
        run(make_job(plan, unfreeze=stages, epochs=epochs, schedule="constant"), tmp_path / f"{epochs}")
        snapshots.append(load_model(tmp_path / f"{epochs}" / "checkpoint.safetensors").model.state_dict())
    start = tmp_path / "start"
    run(make_job(plan, epochs=1, optimizer={"lr": 1e-12}), start)
    snapshots.insert(0, load_model(start / "checkpoint.safetensors").model.state_dict())
    for before, after, expected in zip(snapshots, snapshots[1:], ({"fc"}, {"layer4", "fc"}), strict=False):
        changed = {n.partition(".")[0] for n in before if not torch.allclose(before[n], after[n], atol=1e-9)}
        assert changed == expected


def test_frozen_batch_norm_keeps_its_statistics_while_its_weights_learn(plan: Plan, tmp_path: Path) -> None:
    jobs = {
        "before": {"optimizer": {"lr": 1e-12}},
        "after": {"fine_tune_from": "all", "batch_norm": "frozen"},
    }
    found = {}
    for name, keys in jobs.items():
        run(make_job(plan, epochs=1, **keys), tmp_path / name)
        found[name] = load_model(tmp_path / name / "checkpoint.safetensors").model.state_dict()
    changed = {key for key, before in found["before"].items() if not torch.equal(before, found["after"][key])}
    assert not [key for key in changed if "running" in key or "tracked" in key]
    assert "bn1.weight" in changed


def test_adapted_weights_load_into_the_plain_network(plan: Plan, tmp_path: Path) -> None:
    result = run(make_job(plan, model=VIT, lora={"rank": 2}, epochs=1, test_split="test"), tmp_path)
    assert result["test"]["images"] > 0
    best, last = (load_model(tmp_path / f"{kind}.safetensors").model for kind in ("best", "checkpoint"))
    assert all(
        torch.equal(a, b) for a, b in zip(best.state_dict().values(), last.state_dict().values(), strict=True)
    )


def test_a_time_budget_ends_the_run_after_an_epoch_and_a_larger_one_extends_it(
    plan: Plan, tmp_path: Path
) -> None:
    job = make_job(plan, epochs=5, time_budget=1e-9, schedule="constant")
    assert run(job, tmp_path)["epochs"] == 1
    assert run(job, tmp_path)["epochs"] == 1
    assert run(job.model_copy(update={"time_budget": 3600.0}), tmp_path)["epochs"] == 5


def test_a_checkpoint_from_before_these_keys_is_resumed(plan: Plan, tmp_path: Path) -> None:
    config = make_job(plan).result_config()
    later = {"unfreeze", "lora", "accumulate", "clip_norm", "ema", "precision", "compile", "batch_norm"}
    assert not later & {key.partition(".")[0] for key in config}
    assert "schedule.min_lr" not in config
    assert make_job(plan, ema={"decay": 0.5}).result_config()["ema.decay"] == 0.5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"batch_norm": "sync", "device": "cpu"},
            "batch_norm: expected exact, local or frozen on a CPU, got sync",
        ),
        (
            {"feature_passes": 1, "lora": {}},
            "feature_passes: expected layers that are frozen in all epochs, got lora",
        ),
        (
            {"feature_passes": 1, "unfreeze": [{"epoch": 0, "from": "head"}]},
            "frozen in all epochs, got unfreeze",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(keys: dict[str, Any], message: str, plan: Plan) -> None:
    with pytest.raises(PlanError, match=message):
        make_job(plan, **keys).check_request(trains_here=True)


@pytest.mark.slow
def test_compiled_steps_learn_as_plain_ones_and_resume(plan: Plan, tmp_path: Path) -> None:
    results = {}
    for compiled in (False, True):
        job = make_job(plan, compile=compiled, epochs=1, fine_tune_from="layer4")
        results[compiled] = run(job, tmp_path / f"{compiled}")["validation"]["loss"]
    assert results[True] == pytest.approx(results[False], rel=1e-3)
    with pytest.raises(KeyboardInterrupt):
        run_training_job(job, LocalEngine(num_threads=1), tmp_path / "stopped", Stop(2))
    run(job, tmp_path / "stopped")
    assert outcome_of(tmp_path / "stopped") == outcome_of(tmp_path / "True")


def test_compilation_is_for_one_process(plan: Plan) -> None:
    with pytest.raises(PlanError, match="compile: expected false with 2 ranks, got true"):
        make_job(plan, compile=True).check_ranks(2)


def test_weights_are_the_same_objects_after_copies_of_options() -> None:
    options = UpdateOptions(ema={"decay": 0.5}, unfreeze=[{"epoch": 0, "from": "head"}])
    assert UpdateOptions.model_validate(options.model_dump(mode="json")) == options == copy.copy(options)
