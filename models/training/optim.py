"""Optimizer, learning-rate schedule, checkpoint interval and early stopping, as validated settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

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

    def build(
        self, head: Sequence[torch.nn.Parameter], backbone: Sequence[torch.nn.Parameter]
    ) -> torch.optim.Optimizer:
        """Build the optimizer; every parameter group has ``base_lr``, its peak learning rate."""
        import torch

        rates = ((head, self.lr), (backbone, self.lr * self.backbone_lr_mult))
        groups = [{"params": list(members), "lr": lr, "base_lr": lr} for members, lr in rates if members]
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)


class LRSchedule(CheckedModel):
    """Learning-rate schedule: a pure function of training progress, so that resuming needs no state."""

    kind: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear warm-up from 0."""
    step_epochs: int = Field(default=30, ge=1)
    step_factor: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def factor(self, done_epochs: float, num_epochs: int) -> float:
        """Return the multiplier of the peak learning rate after ``done_epochs`` (fractional) of ``num_epochs``."""
        if done_epochs < self.warmup_epochs:
            return done_epochs / self.warmup_epochs
        if self.kind == "step":
            return float(self.step_factor ** int(done_epochs // self.step_epochs))
        if self.kind == "cosine":
            length = max(num_epochs - self.warmup_epochs, 1e-9)
            return 0.5 * (1 + math.cos(math.pi * min((done_epochs - self.warmup_epochs) / length, 1.0)))
        return 1.0


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
    """Return the epoch with the best value of a metric.

    Ties are resolved by the lower loss, then by the earlier epoch. An undefined value ranks last. A metric that is
    undefined in every epoch, such as AUROC of a split with one class, is replaced by the loss.
    """
    assert history, "best_epoch needs at least one epoch"
    if all(row.get(metric) is None for row in history):
        metric = "loss"
    sign = -1.0 if metric == "loss" else 1.0

    def rank(epoch: int) -> tuple[float, float]:
        value, loss = history[epoch].get(metric), history[epoch].get("loss")
        return (
            -math.inf if value is None else sign * float(value),
            -math.inf if loss is None else -float(loss),
        )

    return max(range(len(history)), key=rank)
