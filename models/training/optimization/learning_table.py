"""Table of the blocks that learn, from which epoch on and at which rate, for ``lightwell explain``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...zoo.freezing import blocks
from .options import LoRA
from .param_groups import PARAMETRIZED, block_of, parameter_rates
from .unfreezing import UnfreezeStage, set_all_trainable, set_trainable

if TYPE_CHECKING:
    from torch import nn

    from ..optim import OptimizerSpec

OUTSIDE = "(outside blocks)"


@dataclass(frozen=True, slots=True)
class LearningRow:
    """A block in a stage of the training."""

    from_epoch: int
    block: str
    num_parameters: int
    num_learning: int
    lr: float | None
    """Peak learning rate; None if the block is frozen."""
    weight_decay: float | None
    """Largest one of its parameters."""

    def cells(self) -> list[str]:
        """Format the row for a table."""
        rates = ["frozen", ""] if self.lr is None else [f"{self.lr:.3g}", f"{self.weight_decay:.3g}"]
        return [
            str(self.from_epoch),
            self.block,
            f"{self.num_parameters:,}",
            f"{self.num_learning:,}",
            *rates,
        ]


HEADER = ["from epoch", "block", "parameters", "learn", "peak lr", "weight decay"]


def learning_table(
    model: nn.Module,
    stages: Sequence[UnfreezeStage],
    optimizer: OptimizerSpec,
    lora: LoRA | None,
    heads: Sequence[str] | None = None,
) -> list[LearningRow]:
    """List every block in every stage.

    Args:
        model: with random weights; its ``requires_grad`` flags are changed, and low-rank updates added.
        stages: what learns from which epoch on.
        optimizer: rates and decay.
        lora: low-rank updates, if any.
        heads: layers that learn at the full rate; the classifier's by default.

    Raises:
        ModelError: a block does not exist, or the model has no attention to adapt.
    """
    set_all_trainable(model, stages)
    if lora is not None:
        from .lora import add_lora

        add_lora(model, lora)
    names = blocks(model)
    rows = []
    for stage in stages:
        set_trainable(model, stage.start)
        if lora is not None:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(parameter.requires_grad or _is_update(name))
        rates = parameter_rates(model, optimizer, heads)
        for block in ("", *names):
            inside = [p for n, p in model.named_parameters() if block_of(n, names) == block]
            learning = [rate for rate in rates if rate.block == block]
            if not inside:
                continue
            rows.append(
                LearningRow(
                    stage.epoch,
                    block or OUTSIDE,
                    sum(parameter.numel() for parameter in inside),
                    sum(rate.parameter.numel() for rate in learning),
                    max((optimizer.lr * rate.lr_mult for rate in learning), default=None),
                    max((rate.weight_decay for rate in learning), default=None),
                )
            )
    return rows


def _is_update(name: str) -> bool:
    return PARAMETRIZED in name and name.endswith((".a", ".b"))
