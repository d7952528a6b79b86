"""A training step: accumulation, clipping, averages, autocast, what is not finite, and what does not fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from host_waits import HostWaits, waits_of_steps
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.evaluation import EpochMetrics
from lightwell.models.training.optim import OptimizerSpec
from lightwell.models.training.optimization.ema import AveragedWeights
from lightwell.models.training.optimization.loss_log import MAX_PENDING, LossLog
from lightwell.models.training.optimization.options import EMA, UpdateOptions
from lightwell.models.training.step import TrainStep, UpdateGroup
from lightwell.models.training.tasks.classification import ClassificationMetrics, CrossEntropy
from lightwell.models.training.train_batch import TrainBatch
from lightwell.pipeline.errors import RunError
from torch import nn


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    for batch, is_last in ((first, False), (second, True)):
        assert torch.equal(weights(parts), before)
        step(batch, running(), factor=1.0, group=UpdateGroup(0, 2, is_last))
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


def test_the_host_waits_for_no_deferred_step_and_once_for_all_of_them() -> None:
    in_steps, in_flush = waits_of_steps(DistributedContext(), 6)
    assert in_steps == []
    assert in_flush[0] == "tolist"  # of all losses and norms; metrics of finished steps follow


def test_waits_of_the_host_are_counted() -> None:
    values = torch.arange(4.0)
    with HostWaits() as calls:
        _ = values.sum().item(), bool(values[0] > 0), values[values > 1], values.cpu(), values.tolist()
        _ = values * 2, values[torch.tensor([1, 2])], torch.where(values > 1, values, -values)
    assert [name for name in calls if name != "_local_scalar_dense"] == [
        "item",
        "__bool__",
        "index",
        "cpu",
        "tolist",
    ]


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
