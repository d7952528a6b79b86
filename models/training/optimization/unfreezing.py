"""Which blocks learn from which epoch on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from pydantic import ConfigDict, Field

from ....pipeline.config.checked_model import CheckedModel
from ....pipeline.errors import ModelError, PlanError
from ...zoo.freezing import blocks, freeze_before

if TYPE_CHECKING:
    from torch import nn

HEAD, ALL = "head", "all"


class UnfreezeStage(CheckedModel):
    """Stage of gradual unfreezing: the part that learns from an epoch on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    epoch: int = Field(ge=0)
    """First epoch of the stage, counted from 0."""
    start: str = Field(alias="from")
    """``head``, ``all``, or a block, which learns together with all later ones."""


def check_stages(stages: Sequence[UnfreezeStage]) -> None:
    """Check the order of the stages.

    Raises:
        PlanError: the first is not at epoch 0, or the epochs do not increase.
    """
    epochs = [stage.epoch for stage in stages]
    if not epochs or epochs[0] != 0 or any(a >= b for a, b in pairwise(epochs)):
        raise PlanError(f"unfreeze: expected epochs that begin with 0 and increase, got {epochs}; "
                        "write {epoch: 0, from: head} first")  # fmt: skip


def set_trainable(model: nn.Module, start: str) -> None:
    """Make a part of a model trainable and freeze the rest.

    Args:
        model: only its ``requires_grad`` flags are changed.
        start: ``head``, ``all``, or the first block that learns.

    Raises:
        ModelError: no such block; the message lists all blocks and the closest match.
    """
    if start == ALL:
        model.requires_grad_(True)
    else:
        freeze_before(model, None if start == HEAD else start)


def stage_at(stages: Sequence[UnfreezeStage], epoch: int) -> UnfreezeStage:
    """Return the stage of an epoch."""
    return [stage for stage in stages if stage.epoch <= epoch][-1]


def set_all_trainable(model: nn.Module, stages: Sequence[UnfreezeStage]) -> None:
    """Make everything trainable that learns in any stage.

    Raises:
        ModelError: a stage has no such block, or begins behind the one before it.
    """
    names = blocks(model)
    order = [ALL, *names, HEAD]
    starts = [stage.start for stage in stages]
    for start in starts:
        set_trainable(model, start)  # refuses unknown blocks
    positions = [order.index(start) for start in starts]
    if positions != sorted(positions, reverse=True):
        raise ModelError(f"unfreeze: expected each stage to begin in front of the one before, got {', '.join(starts)}; "
                         f"blocks in order: {', '.join(names)}")  # fmt: skip
