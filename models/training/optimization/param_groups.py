"""Parameter groups of the optimizer: learning rate and weight decay of every parameter that learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from ....pipeline.errors import ModelError, did_you_mean
from ...zoo.freezing import blocks
from ...zoo.heads import classifier_layers

PARAMETRIZED = ".parametrizations."
"""Part of the names of low-rank updates, which learn at the rate of the head."""

if TYPE_CHECKING:
    import torch

    from ..optim import OptimizerSpec


@dataclass(frozen=True)
class ParameterRate:
    """Learning rate and weight decay of a parameter that learns."""

    name: str
    parameter: torch.nn.Parameter
    block: str
    """Its block; empty for parameters outside any block, such as class tokens."""
    lr_mult: float
    """Peak learning rate, relative to that of the head."""
    weight_decay: float


def parameter_rates(
    model: torch.nn.Module, spec: OptimizerSpec, heads: Sequence[str] | None = None
) -> list[ParameterRate]:
    """List the parameters that learn, those of the head first, then in the order of the model.

    Args:
        model: only parameters that require a gradient are listed.
        spec: rates and weight decay.
        heads: names of the layers that learn at the full rate; the classifier's by default.

    Raises:
        ModelError: ``lr_mults`` names an unknown block.
    """
    names = blocks(model)
    prefixes = tuple(f"{head}." for head in (classifier_layers(model) if heads is None else heads))
    multipliers = block_multipliers(model, spec)
    undecayed = _undecayed(model)
    found = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        block = block_of(name, names)
        at_peak = name.startswith(prefixes) or PARAMETRIZED in name
        decays = spec.decay_1d or (parameter.dim() > 1 and name not in undecayed)
        found.append(
            ParameterRate(
                name,
                parameter,
                block,
                1.0 if at_peak else multipliers[block],
                spec.weight_decay if decays else 0.0,
            )
        )
    return sorted(found, key=lambda rate: not rate.name.startswith(prefixes))


def param_groups(
    model: torch.nn.Module, spec: OptimizerSpec, heads: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return the optimizer's groups; each has ``base_lr``, its peak learning rate. Arguments as of ``parameter_rates``."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for rate in parameter_rates(model, spec, heads):
        groups.setdefault((rate.lr_mult, rate.weight_decay), []).append(rate.parameter)
    return [
        {"params": members, "lr": spec.lr * mult, "base_lr": spec.lr * mult, "weight_decay": decay}
        for (mult, decay), members in groups.items()
    ]


def block_multipliers(model: torch.nn.Module, spec: OptimizerSpec) -> Mapping[str, float]:
    """Return the learning-rate multiplier of each block; of parameters outside any block under the empty string.

    Raises:
        ModelError: ``lr_mults`` names an unknown block.
    """
    names = blocks(model)
    if spec.layer_decay is not None:
        depths = block_depths(model)
        return {
            name: float(spec.layer_decay ** (depths[names[-1]] - depth)) for name, depth in depths.items()
        }
    for name in spec.lr_mults or {}:
        if name not in names:
            raise ModelError(f"optimizer.lr_mults: expected a block of {type(model).__name__}, got {name!r}; "
                             f"{did_you_mean(name, names)} (blocks: {', '.join(names)})")  # fmt: skip
    current, found = spec.backbone_lr_mult, {"": spec.backbone_lr_mult}
    for name in names:
        current = (spec.lr_mults or {}).get(name, current)
        found[name] = current
    return found


def block_of(name: str, names: Sequence[str]) -> str:
    """Return the block that a parameter belongs to; the empty string for one outside any block."""
    return next((block for block in names if name.startswith(f"{block}.")), "")


def block_depths(model: torch.nn.Module) -> Mapping[str, int]:
    """Return the depth of each block, counted from 0, as timm counts it for layer decay.

    A block without weights of more than one dimension, such as the last norm of a transformer, belongs to the one before it.
    Parameters outside any block, such as class tokens, have depth 0 and the empty string as name.
    """
    depth, found = -1, {"": 0}
    for name in blocks(model):
        is_norm = all(parameter.dim() < 2 for parameter in model.get_submodule(name).parameters())
        depth += depth < 0 or not is_norm
        found[name] = depth
    return found


def _undecayed(model: torch.nn.Module) -> frozenset[str]:
    """Return the names that a timm model excludes from weight decay, such as position embeddings."""
    listed = getattr(model, "no_weight_decay", None)
    return frozenset(cast("Any", listed)()) if callable(listed) else frozenset()
