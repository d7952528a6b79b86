"""Low-rank adaptation of attention weights (Hu et al., "LoRA", ICLR 2022)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from ....pipeline.errors import ModelError
from .options import LoRA
from .param_groups import PARAMETRIZED

ORIGINAL = ".original"


class LowRankUpdate(nn.Module):
    """Adds ``alpha / rank * b @ a`` to a weight; it changes nothing until ``b`` has learned, which begins at 0."""

    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor, lora: LoRA) -> None:
        super().__init__()
        self.a = nn.Parameter(weight.new_empty(lora.rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], lora.rank))
        self.register_buffer("scale", weight.new_tensor(lora.alpha / lora.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the adapted weight."""
        return weight + self.scale * (self.b @ self.a)


def add_lora(model: nn.Module, lora: LoRA) -> None:
    """Add trainable low-rank updates to the attention projections, drawn from torch's generator.

    Args:
        model: its projections should be frozen.
        lora: size of the matrices.

    Raises:
        ModelError: the model has no attention.
    """
    found = list(_projections(model))
    if not found:
        raise ModelError(f"lora: expected a network with attention, got {type(model).__name__} without it; "
                         "choose a vision transformer, or fine_tune_from in place of lora")  # fmt: skip
    for module, name in found:
        parametrize.register_parametrization(module, name, LowRankUpdate(getattr(module, name), lora))


def _projections(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield module and name of each matrix that projects to or from queries, keys and values."""
    for module in model.modules():
        if "attention" not in type(module).__name__.lower():
            continue
        if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            yield module, "in_proj_weight"
        for child in module.children():
            if isinstance(child, nn.Linear):
                yield child, "weight"


def remove_lora(model: nn.Module) -> None:
    """Remove the low-rank updates, without adding them to the weights."""
    for module in [part for part in model.modules() if parametrize.is_parametrized(part)]:
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def is_adapted(names: Iterator[str] | Mapping[str, torch.Tensor]) -> bool:
    """Return whether names of weights are those of a model with low-rank updates."""
    return any(PARAMETRIZED in name for name in names)


def merge_lora(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of the plain network, with the low-rank updates added as in the forward pass."""
    merged = {}
    for name, tensor in weights.items():
        if PARAMETRIZED not in name:
            merged[name] = tensor
        elif name.endswith(ORIGINAL):
            prefix = f"{name.removesuffix(ORIGINAL)}.0"
            a, b, scale = (weights[f"{prefix}.{part}"] for part in ("a", "b", "scale"))
            merged[name.replace(PARAMETRIZED, ".").removesuffix(ORIGINAL)] = tensor + scale * (b @ a)
    return merged
