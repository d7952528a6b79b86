"""Copies of a model whose weights are random from the output down (Adebayo et al., "Sanity Checks for Saliency Maps", 2018).

Maps that hardly change with the weights show the image, not the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from ....pipeline.rng import derive_seed


def randomized_copies(model: nn.Module, num_steps: int, seed: int) -> tuple[nn.Module, ...]:
    """Return copies of a model on the CPU in which ever more layers are random, the last ones first; the model is unchanged.

    The cascading randomisation of section 3.1 in a few steps: with three, the last third of the layers, two thirds, all.
    Layers are reset as when the network was built; parameters without an initialisation of their own, such as class
    tokens, have their values permuted.

    Args:
        model: any network.
        num_steps: number of copies.
        seed: each parameter's values depend on the seed and its name only.
    """
    names = [
        name
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    copies = []
    for step in range(1, num_steps + 1):
        changed = copy.deepcopy(model).cpu()
        for name in names[len(names) - -(-len(names) * step // num_steps) :]:
            _randomize(changed.get_submodule(name), derive_seed("audit.trust", seed, 0, f"weights {name}"))
        copies.append(changed)
    return tuple(copies)


def _randomize(module: nn.Module, seed: int) -> None:
    """Randomise the parameters of a module, without those of its children."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed % 2**63)
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            cast("Callable[[], None]", reset)()
            return
        for parameter in module.parameters(recurse=False):
            values = parameter.flatten()
            parameter.copy_(values[torch.randperm(len(values))].view_as(parameter))
