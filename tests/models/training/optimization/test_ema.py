"""Averages of weights."""

from __future__ import annotations

import pytest
import torch
from lightwell.models.training.optimization.ema import AveragedWeights
from lightwell.models.training.optimization.options import EMA
from lightwell.pipeline.errors import ModelError
from torch import nn


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    model(torch.randn(3, 1, 2, 2))  # moves the statistics too


def test_averages_follow_the_formula_for_parameters_and_buffers(model: nn.Module) -> None:
    averaged = AveragedWeights(model, EMA(decay=0.5))
    expected = {name: tensor.double() for name, tensor in averaged.state().items()}
    for number in range(4):
        change(model)
        averaged.update(number)
        decay = min(0.5, (1 + number) / (10 + number))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor
    assert "1.running_mean" in expected
    for name, tensor in averaged.state().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-6, atol=1e-6)


def test_the_model_has_the_averages_within_the_context_and_its_own_weights_after_it(model: nn.Module) -> None:
    averaged = AveragedWeights(model, EMA())
    change(model)
    averaged.update(0)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    averages = {name: tensor.clone() for name, tensor in averaged.state().items()}
    with averaged.applied():
        inside = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert all(torch.equal(inside[name], average) for name, average in averages.items())
    assert torch.equal(inside["1.num_batches_tracked"], own["1.num_batches_tracked"])
    assert not torch.equal(inside["0.weight"], own["0.weight"])
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, averages[name]) for name, tensor in averaged.state().items())


def test_frozen_weights_equal_their_average_to_the_bit(model: nn.Module) -> None:
    averaged = AveragedWeights(model, EMA(decay=0.9))
    for number in range(5):
        averaged.update(number)
    assert all(torch.equal(tensor, averaged.state()[name]) for name, tensor in model.named_parameters())


def test_averages_of_another_model_or_with_nan_are_refused(model: nn.Module) -> None:
    averaged = AveragedWeights(model, EMA())
    with pytest.raises(ModelError, match="expected averages of all weights, got other names or shapes"):
        averaged.load({"0.weight": torch.zeros(2, 1, 1, 1)})
    state = averaged.state()
    with pytest.raises(ModelError, match="expected averages that are finite"):
        averaged.load({name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()})
