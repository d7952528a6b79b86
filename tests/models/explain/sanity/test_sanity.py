"""Randomised copies of networks, and maps that follow a patch or do not."""

from __future__ import annotations

import copy

import torch
from lightwell.models.explain.sanity.patch_response import follows_patch
from lightwell.models.explain.sanity.randomize import randomized_copies
from torch import nn


class WithToken(nn.Module):
    """A network with a parameter that no module initialises."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.arange(6.0))
        self.first, self.second, self.head = nn.Linear(6, 4), nn.Linear(4, 4), nn.Linear(4, 2)


def test_layers_become_random_from_the_last_one_and_the_model_stays_as_it_was() -> None:
    model = WithToken()
    model.second.requires_grad_(requires_grad=False)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    copies = randomized_copies(model, 2, seed=3)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    changed = [
        {name for name, value in each.state_dict().items() if not torch.equal(value, before[name])}
        for each in copies
    ]
    assert changed[0] == {"second.weight", "second.bias", "head.weight", "head.bias"}
    assert changed[1] == set(before)
    assert copies[1].token.sort().values.tolist() == model.token.tolist(), "permuted"
    again = randomized_copies(model, 2, seed=3)
    assert all(
        torch.equal(value, again[1].state_dict()[name]) for name, value in copies[1].state_dict().items()
    )
    other = randomized_copies(model, 2, seed=4)[1]
    assert not torch.equal(other.head.weight, copies[1].head.weight)
    assert torch.equal(copies[0].head.weight, copies[1].head.weight), "cumulative"


def test_maps_that_change_elsewhere_than_the_image_do_not_follow_a_patch() -> None:
    image = torch.zeros((1, 3, 16, 16))

    def local(images: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
        assert outputs.tolist() == [1] * 5
        return nn.functional.avg_pool2d(images, 4).mean(dim=1)

    assert follows_patch(local, image, 1)
    assert not follows_patch(lambda images, outputs: local(images, outputs).transpose(1, 2), image, 1)
    assert not follows_patch(lambda images, outputs: local(images, outputs).flip(1), image, 1)
    assert not follows_patch(lambda images, _: torch.ones((len(images), 4, 4)), image, 1)
