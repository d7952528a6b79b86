"""Batch statistics and dropout masks of the global batch, tested in one process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lightwell.models.training.distributed.batchnorm import GlobalBatchNorm
from lightwell.models.training.distributed.context import DistributedContext
from lightwell.models.training.distributed.global_batch import BatchSlice, GlobalBatch, global_batch
from timm.layers import DropPath
from torch import nn
from torchvision.ops import StochasticDepth

DRAWING: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.4),
    "dropout in place": lambda: nn.Dropout(0.4, inplace=True),
    "dropout of channels": lambda: nn.Dropout2d(0.4),
    "stochastic depth of torchvision": lambda: StochasticDepth(0.4, "row"),
    "stochastic depth of timm": lambda: DropPath(0.4),
}


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("num_global", [8, 7, 5])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
def test_random_masks_of_ranks_equal_those_of_one_process(
    name: str, num_global: int, layout: torch.memory_format
) -> None:
    """Two layers in a row: the generator state after the first equals that of one process."""
    module = DRAWING[name]()
    inputs = (torch.rand(num_global, 6, 3, 3) + 1).contiguous(memory_format=layout)
    torch.manual_seed(4)
    expected = [module(inputs.clone()), module(inputs.clone())]
    num_here = -(-num_global // 2)
    for rank in range(2):
        rows = [place % num_global for place in range(rank * num_here, (rank + 1) * num_here)]
        own = min(num_here, num_global - rank * num_here)
        torch.manual_seed(4)
        with global_batch(DistributedContext(rank, 2), num_here, num_global):
            got = [module(inputs[rows]), module(inputs[rows])]
        for ours, theirs in zip(got, expected, strict=True):
            assert torch.equal(ours[:own], theirs[rank * num_here : rank * num_here + own])
            assert len(ours) == num_here


def test_gradients_flow_through_random_masks() -> None:
    inputs = torch.rand(4, 5, requires_grad=True)
    with global_batch(DistributedContext(1, 2), 4, 8):
        out = nn.functional.dropout(inputs, 0.5)
    out.sum().backward()
    assert torch.equal(inputs.grad, (out != 0) * 2.0)


def test_local_batchnorm_is_that_of_the_ranks_own_rows_and_dropout_stays_global() -> None:
    inputs = torch.rand(4, 5)
    ours, theirs = nn.BatchNorm1d(5), nn.BatchNorm1d(5)
    torch.manual_seed(4)
    with global_batch(DistributedContext(1, 2), 4, 8, norm=False):
        normed, dropped = ours(inputs), nn.functional.dropout(inputs, 0.5)
    assert torch.equal(normed, theirs(inputs))
    assert torch.equal(ours.running_var, theirs.running_var)
    torch.manual_seed(4)
    mask = nn.functional.dropout(torch.ones(8, 5), 0.5)[4:]
    assert torch.equal(dropped, inputs * mask)


def test_eval_mode_and_other_row_counts_are_not_overridden() -> None:
    module = nn.Sequential(nn.BatchNorm1d(5), nn.Dropout(0.5)).eval()
    inputs = torch.rand(4, 5)
    with global_batch(DistributedContext(0, 2), 4, 8):
        assert torch.equal(module(inputs), module[0](inputs))
        assert torch.empty(3).bernoulli_(0.5).shape == (3,)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3, 5)])
def test_batchnorm_of_one_rank_is_that_of_torch(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(shape) * 3 + 100).requires_grad_()
    weight, bias = torch.rand(4, requires_grad=True), torch.rand(4, requires_grad=True)
    pull = torch.randn(shape)
    expected = nn.functional.batch_norm(inputs, None, None, weight, bias, training=True)
    gradients = torch.autograd.grad((expected * pull).sum(), (inputs, weight, bias))
    out, mean, var, count = GlobalBatchNorm.apply(inputs, weight, bias, 1e-5, 6, DistributedContext())
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad((out * pull).sum(), (inputs, weight, bias)), gradients, strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    assert count == inputs.numel() // 4
    axes = [axis for axis in range(inputs.dim()) if axis != 1]
    torch.testing.assert_close(mean, inputs.mean(axes))
    torch.testing.assert_close(var, inputs.var(axes, unbiased=False), rtol=1e-4, atol=1e-4)


def test_padding_affects_neither_statistics_nor_gradients() -> None:
    torch.manual_seed(0)
    layer, plain = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    own = torch.randn(4, 3, 2, 2)
    first, second = own.clone().requires_grad_(), own.clone().requires_grad_()
    pull = torch.randn(own.shape)
    (plain(first) * pull).sum().backward()
    with GlobalBatch(DistributedContext(), BatchSlice(num_rows=6, first=0, num_global=4)):
        out = layer(torch.cat([second, torch.full((2, 3, 2, 2), 1e3)]))
    (out[:4] * pull).sum().backward()
    torch.testing.assert_close(second.grad, first.grad, rtol=1e-4, atol=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value)
