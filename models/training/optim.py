"""How weights move: optimiser, learning-rate schedule, early stop. Values, checked when they are built."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from ...pipeline.config.checked_model import CheckedModel

if TYPE_CHECKING:
    import torch

MetricName = Literal["loss", "accuracy", "balanced_accuracy", "auroc"]


class OptimizerSpec(CheckedModel):
    """The optimiser and its settings."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(default=2e-3, gt=0)
    """Of the head, at the schedule's peak."""
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of SGD; AdamW keeps its usual 0.9 and 0.999."""
    backbone_lr_mult: float = Field(default=0.1, gt=0)
    """The unfrozen part of the trunk learns at ``lr * trunk_factor``."""

    def build(
        self, head: Sequence[torch.nn.Parameter], backbone: Sequence[torch.nn.Parameter]
    ) -> torch.optim.Optimizer:
        """Make the optimiser; every group carries ``base_lr``, its rate at the schedule's peak."""
        import torch

        rates = ((head, self.lr), (backbone, self.lr * self.backbone_lr_mult))
        groups = [{"params": list(members), "lr": lr, "base_lr": lr} for members, lr in rates if members]
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)


class LRSchedule(CheckedModel):
    """The learning rate over the run, a pure function of how far it is, so that resuming needs no state."""

    kind: Literal["constant", "cosine", "step"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    """The rate rises linearly from 0 over so many epochs."""
    step_epochs: int = Field(default=30, ge=1)
    step_factor: float = Field(default=0.1, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def factor(self, done_epochs: float, num_epochs: int) -> float:
        """Return what the peak rate is multiplied by after ``done_epochs`` (fractional) of ``num_epochs``."""
        if done_epochs < self.warmup_epochs:
            return done_epochs / self.warmup_epochs
        if self.kind == "step":
            return float(self.step_factor ** int(done_epochs // self.step_epochs))
        if self.kind == "cosine":
            length = max(num_epochs - self.warmup_epochs, 1e-9)
            return 0.5 * (1 + math.cos(math.pi * min((done_epochs - self.warmup_epochs) / length, 1.0)))
        return 1.0


class CheckpointEvery(CheckedModel):
    """How often a run writes down where it stands; it never changes what is learnt.

    Whichever comes first; the end of an epoch is always written down.
    """

    steps: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=60.0, gt=0)
    """Longer where writing would take more than ``MAX_SHARE`` of the time."""


MAX_CHECKPOINT_OVERHEAD = 0.02


class EarlyStop(CheckedModel):
    """Stop when a validation metric has not improved for some epochs; ``best_epoch`` defines what is better."""

    metric: MetricName = "auroc"
    patience: int = Field(default=3, ge=1)

    def is_reached(self, history: Sequence[Mapping[str, Any]]) -> bool:
        """Say whether the run ends after the epochs of a history of validation metrics."""
        return bool(history) and len(history) - 1 - best_epoch(history, self.metric) >= self.patience


def best_epoch(history: Sequence[Mapping[str, Any]], metric: MetricName) -> int:
    """Return the epoch with the best value of a metric.

    Of equal values the epoch with the lower loss is better, of equal losses the earlier one. A metric that is defined in
    no epoch, as AUROC where the split has one class, is replaced by the loss; an undefined value loses against any other.
    """
    assert history, "the best epoch of no epochs was asked for"
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
