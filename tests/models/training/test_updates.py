"""What happens between gradients and weights: accumulation, clipping, averages, autocast, stages; and that all of it resumes."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.training.checkpoint import content_digest, load_model, read_tensors
from lightwell.models.training.evaluation import EpochMetrics
from lightwell.models.training.job import Classify
from lightwell.models.training.optim import OptimizerSpec
from lightwell.models.training.optimization.ema import AveragedWeights
from lightwell.models.training.optimization.loss_log import MAX_PENDING, LossLog
from lightwell.models.training.optimization.options import EMA, UpdateOptions
from lightwell.models.training.step import TrainStep, UpdateGroup
from lightwell.models.training.tasks.classification import ClassificationMetrics, CrossEntropy
from lightwell.models.training.train_batch import TrainBatch
from lightwell.pipeline.errors import PlanError, RunError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_training_job
from pictures import make_folder
from torch import nn

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


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_groups_cover_every_batch_once(num_steps: int, accumulate: int, epoch: int) -> None:
    groups = [UpdateGroup.of(epoch, step, num_steps, accumulate) for step in range(num_steps)]
    assert sum(group.size for group in groups if group.is_complete) == num_steps
    numbers = [group.number for group in groups if group.is_complete]
    following = UpdateGroup.of(epoch + 1, 0, num_steps, accumulate).number
    assert [*numbers, following] == list(range(numbers[0], following + 1))
    assert all(epoch < group.done_epochs < epoch + 1 for group in groups)


class Net(nn.Module):
    """A small classifier of vectors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(inputs).relu())


def make_batch(num_rows: int, step: int = 0, scale: float = 1.0) -> TrainBatch:
    generator = torch.Generator().manual_seed(step)
    inputs = torch.randn(num_rows, 4, generator=generator) * scale
    keys = tuple(f"{step}/{row}.jpg" for row in range(num_rows))
    return TrainBatch(
        inputs, torch.arange(num_rows) % 2, torch.zeros(num_rows, dtype=torch.bool), step=step, keys=keys
    )


def running() -> EpochMetrics:
    return EpochMetrics(ClassificationMetrics(2))


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    spec = OptimizerSpec(name="sgd", lr=0.1, momentum=0, weight_decay=0)
    return spec.build(list(module.parameters()), [])


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_two_accumulated_batches_update_the_weights_like_one_of_twice_the_size() -> None:
    first, second = make_batch(6, 0), make_batch(6, 1)
    both = TrainBatch(
        *(torch.cat([getattr(b, n) for b in (first, second)]) for n in ("inputs", "targets", "replaced"))
    )
    whole, parts = Net(), Net()
    TrainStep(whole, sgd(whole), CrossEntropy())(both, running(), factor=1.0)
    step = TrainStep(parts, sgd(parts), CrossEntropy(), options=UpdateOptions(accumulate=2))
    before = weights(parts)
    due = [
        step(batch, running(), factor=1.0, group=UpdateGroup(0, 2, is_last), checkpoint_requested=True)
        for batch, is_last in ((first, False), (second, True))
    ]
    assert due == [False, True]  # a checkpoint waits for the update
    assert not torch.equal(weights(parts), before)
    torch.testing.assert_close(weights(parts), weights(whole))


def test_gradients_of_a_group_whose_last_batch_was_skipped_are_applied() -> None:
    net, expected = Net(), Net()
    step = TrainStep(net, sgd(net), CrossEntropy(), options=UpdateOptions(accumulate=2))
    epoch = running()
    step(make_batch(4, 0), epoch, factor=1.0, group=UpdateGroup(0, 1, is_complete=False))
    step.end_epoch(epoch)
    TrainStep(expected, sgd(expected), CrossEntropy())(make_batch(4, 0), running(), factor=1.0)
    assert torch.equal(weights(net), weights(expected))


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clipping_scales_the_update_to_the_norm_of_torchs_clip_grad_norm(limit: float) -> None:
    net, expected = Net(), Net()
    batch = make_batch(8)
    TrainStep(net, sgd(net), CrossEntropy(), options=UpdateOptions(clip_norm=limit))(
        batch, running(), factor=1.0
    )
    optimizer = sgd(expected)
    nn.functional.cross_entropy(expected(batch.inputs), batch.targets).backward()
    nn.utils.clip_grad_norm_(expected.parameters(), limit)
    optimizer.step()
    torch.testing.assert_close(weights(net), weights(expected))
    if limit < 1:
        assert math.isclose(float((weights(net) - weights(Net())).norm()), 0.1 * limit, rel_tol=1e-3)


def test_the_average_is_updated_once_for_each_update_of_the_weights() -> None:
    net = Net()
    average = AveragedWeights(net, EMA(decay=0.5))
    step = TrainStep(net, sgd(net), CrossEntropy(), average=average, options=UpdateOptions(accumulate=2))
    by_hand = average.state()["head.bias"].clone()
    for number in range(4):
        group = UpdateGroup.of(0, number, 4, 2)
        step(make_batch(4, number), running(), factor=1.0, group=group)
        if group.is_complete:
            decay = min(0.5, (1 + group.number) / (10 + group.number))
            by_hand = decay * by_hand + (1 - decay) * net.head.bias.detach()
    torch.testing.assert_close(average.state()["head.bias"], by_hand)


def test_autocast_keeps_float32_weights_and_computes_in_bfloat16() -> None:
    net, seen = Net(), []
    net.hidden.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    options = UpdateOptions(precision="bfloat16")
    epoch = running()
    TrainStep(net, sgd(net), CrossEntropy(), options=options)(make_batch(8), epoch, factor=1.0)
    assert seen == [torch.bfloat16]
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    with torch.no_grad():
        exact = nn.functional.cross_entropy(Net()(make_batch(8).inputs), make_batch(8).targets)
    assert epoch.loss / 8 == pytest.approx(float(exact), rel=0.02)


def test_an_overflow_in_float16_costs_one_update_and_lowers_the_scale() -> None:
    net = Net()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    step = TrainStep(net, sgd(net), CrossEntropy(), options=UpdateOptions(precision="float16"), scaler=scaler)
    before = weights(net)
    step(make_batch(8), running(), factor=1.0)
    assert torch.equal(weights(net), before)
    assert scaler.get_scale() == 2.0**39
    while torch.equal(weights(net), before):
        step(make_batch(8), running(), factor=1.0)
    assert weights(net).isfinite().all()


def test_a_loss_that_is_not_finite_names_the_step_and_the_images() -> None:
    net = Net()
    before = weights(net)
    with pytest.raises(RunError, match=r"got nan at step 3 with '3/0\.jpg', '3/1\.jpg'; lower optimizer\.lr"):
        TrainStep(net, sgd(net), CrossEntropy())(make_batch(2, 3, math.nan), running(), factor=1.0)
    assert torch.equal(weights(net), before)


def test_deferred_steps_are_checked_together_and_add_up_to_the_same() -> None:
    """As on a GPU, where no step is waited for."""
    generator = torch.Generator().manual_seed(1)
    logs, epochs = (LossLog(), LossLog(is_deferred=True)), (running(), running())
    for number in range(MAX_PENDING + 3):
        batch, scores = make_batch(4, number), torch.randn(4, 2, generator=generator)
        for log, epoch in zip(logs, epochs, strict=True):
            log.add(batch, scores, 4, scores.mean(), epoch)
            log.check_norm(scores.norm())
    assert epochs[1].num_read == 4 * MAX_PENDING  # the rest is still on the device
    logs[1].flush(epochs[1])
    assert (epochs[0].loss, epochs[0].num_read) == (epochs[1].loss, epochs[1].num_read)
    sums = [epoch.metrics.sums["confusion"] for epoch in epochs]
    assert torch.equal(*sums)
    for step, value in ((7, 1.0), (8, math.inf), (9, math.nan)):
        logs[1].add(make_batch(2, step), torch.zeros(2, 2), 2, torch.tensor(1.0), epochs[1])
        logs[1].check_norm(torch.tensor(value))
    with pytest.raises(
        RunError, match=r"expected finite gradients, got a norm of inf at step 8 with '8/0\.jpg'"
    ):
        logs[1].flush(epochs[1])


class Hungry(Net):
    """Fits three rows in memory."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return super().forward(inputs)


def test_out_of_memory_says_which_batch_size_fits() -> None:
    net = Hungry()
    step = TrainStep(net, sgd(net), CrossEntropy(), options=UpdateOptions(accumulate=2))
    message = r"fits in the memory of cpu, got 16 images; 2 fit: write batch: {size: 2} and accumulate: 16"
    with pytest.raises(RunError, match=message):
        step(make_batch(16), running(), factor=1.0, group=UpdateGroup(0, 2, is_complete=False))


def test_an_allocation_that_fails_is_explained() -> None:
    class Huge(Net):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) + torch.empty(10**16)[:2]

    net = Huge()
    with pytest.raises(RunError, match="got 4 images; not even one image fits: use smaller images"):
        TrainStep(net, sgd(net), CrossEntropy())(make_batch(4), running(), factor=1.0)


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
        ({"batch_norm": "sync", "device": "cpu"}, "batch_norm: expected exact or local on a CPU, got sync"),
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
