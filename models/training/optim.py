"""Optimizer, checkpoint interval and early stopping, as validated settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveFloat, model_validator

from ...pipeline.config.checked_model import CheckedModel

if TYPE_CHECKING:
    import torch


class OptimizerSpec(CheckedModel):
    """Optimizer and its hyperparameters."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=2e-3, gt=0)
    """Peak learning rate of the head."""
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only; AdamW uses betas 0.9 and 0.999."""
    backbone_lr_mult: float = Field(default=0.1, gt=0)
    """Learning-rate multiplier of the unfrozen part of the backbone, relative to ``lr``."""
    lr_mults: dict[str, PositiveFloat] | None = None
    """Multipliers by block, each from that block to the next one named: ``{layer3: 0.03, layer4: 0.3}``. Blocks before the
    first have ``backbone_lr_mult``; the head always has ``lr``."""
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    """In place of ``backbone_lr_mult``: the rate falls by this factor from each block to the one before it, as timm's."""
    decay_1d: bool = True
    """Whether biases, the weights of norms and what the model itself excludes (timm's ``no_weight_decay``) decay too.
    False is usual for fine-tuning."""

    @model_validator(mode="after")
    def _check_layer_decay(self) -> OptimizerSpec:
        others = [key for key in ("backbone_lr_mult", "lr_mults") if key in self.model_fields_set]
        others = [key for key in others if getattr(self, key) != type(self).model_fields[key].default]
        if self.layer_decay is not None and others:
            raise ValueError(
                f"layer_decay: expected no other multiplier beside it, got {others[0]}; remove one of them"
            )
        return self

    def build_for(self, model: torch.nn.Module, heads: Sequence[str] | None = None) -> torch.optim.Optimizer:
        """Build the optimizer of a model's trainable parameters; arguments as of ``param_groups``.

        Raises:
            ModelError: ``lr_mults`` names an unknown block.
        """
        from .optimization.param_groups import param_groups

        return self._build(param_groups(model, self, heads))

    def build(
        self, head: Sequence[torch.nn.Parameter], backbone: Sequence[torch.nn.Parameter]
    ) -> torch.optim.Optimizer:
        """Build the optimizer of two lists of parameters; every group has ``base_lr``, its peak learning rate."""
        rates = ((head, self.lr), (backbone, self.lr * self.backbone_lr_mult))
        return self._build(
            [{"params": list(members), "lr": lr, "base_lr": lr} for members, lr in rates if members]
        )

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        import torch

        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)


class CheckpointEvery(CheckedModel):
    """Checkpoint interval within an epoch, in steps or seconds, whichever comes first.

    A checkpoint is always written at the end of an epoch. The interval does not affect the result.
    """

    steps: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=60.0, gt=0)
    """Extended where writing would take more than ``MAX_CHECKPOINT_OVERHEAD`` of the time."""


MAX_CHECKPOINT_OVERHEAD = 0.02


class EarlyStop(CheckedModel):
    """Early stopping: end the run after ``patience`` epochs without a new ``best_epoch``."""

    metric: str = "auroc"
    """``loss`` or a metric of the task; in a job file, the one that the task monitors by default."""
    patience: int = Field(default=3, ge=1)

    def is_reached(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether to stop, given the validation metrics of all finished epochs."""
        return bool(history) and len(history) - 1 - best_epoch(history, self.metric) >= self.patience


def best_epoch(history: Sequence[Mapping[str, Any]], metric: str) -> int:
    """Return the epoch with the best value of a metric; see ``ranked_epochs``."""
    assert history, "best_epoch needs at least one epoch"
    return ranked_epochs(history, metric)[0]


def ranked_epochs(history: Sequence[Mapping[str, Any]], metric: str) -> list[int]:
    """Return the epochs by their values of a metric, the best first.

    Ties are resolved by the lower loss, then by the earlier epoch. An undefined value ranks last. A metric that is
    undefined in every epoch, such as AUROC of a split with one class, is replaced by the loss.
    """
    if all(row.get(metric) is None for row in history):
        metric = "loss"
    sign = -1.0 if metric == "loss" else 1.0

    def rank(epoch: int) -> tuple[float, float]:
        value, loss = history[epoch].get(metric), history[epoch].get("loss")
        return (
            -math.inf if value is None else sign * float(value),
            -math.inf if loss is None else -float(loss),
        )

    return sorted(range(len(history)), key=rank, reverse=True)
