"""Keys of a training job for what learns, and for the update of the weights in a step."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ....pipeline.config.checked_model import CheckedModel
from .unfreezing import HEAD, UnfreezeStage, check_stages

_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_duration(value: Any) -> Any:
    """Convert a duration such as ``30m``, ``2h`` or ``90s`` to seconds; other values are left to the validation."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"expected seconds, or a duration such as 30m, 2h or 90s, got {value!r}; correct it")
    return float(match[1]) * _SECONDS[match[2]]


class EMA(CheckedModel):
    """Average of the weights after every update: validated, kept as the best and tested in their place."""

    decay: float = Field(default=0.999, gt=0, lt=1)
    """Share of the average that stays at each update. It begins lower, at ``(1 + n) / (10 + n)`` after n updates, so that
    a short run is not dominated by its initial weights."""

    def decay_after(self, num_updates: int) -> float:
        """Return the decay of an update, given the number of those before it."""
        return min(self.decay, (1 + num_updates) / (10 + num_updates))


class LoRA(CheckedModel):
    """Low-rank matrices learn in place of the weights of all attention projections, which stay frozen."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    """The product of the matrices is scaled by ``alpha / rank``."""


class UpdateOptions(CheckedModel):
    """Trainable parts by epoch, and the way from the gradients of a batch to the weights."""

    fine_tune_from: str | None = None
    """None trains only the head. The name of a block trains it and all later blocks. ``all`` trains the whole model."""
    unfreeze: tuple[UnfreezeStage, ...] | None = None
    """In place of ``fine_tune_from``: stages such as ``[{epoch: 0, from: head}, {epoch: 2, from: layer4}]``, each in front
    of the one before. Two stages, ``head`` and ``all``, are a probe followed by fine-tuning."""
    lora: LoRA | None = None
    """In place of both: low-rank updates of the attention projections learn, and the head. ``best.safetensors`` holds the
    plain network, updates added."""
    accumulate: int = Field(default=1, ge=1)
    """Batches per update. Their gradients are averaged; ``batch.size`` of the plan stays the size of a forward pass. Within
    an epoch, checkpoints are written after updates only."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Scale the gradients down to this norm, taken over all of them, where it is exceeded."""
    ema: EMA | None = None
    """Average the weights. The average is validated, kept as the best and tested; training goes on from the plain weights."""
    precision: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
    """``float32`` and ``float64``: of parameters and scores; ``float64`` is slow, results of different numbers of ranks then
    differ only by rounding. ``bfloat16`` and ``float16``: autocast of training steps, with float32 parameters; validation
    and test run in float32. ``float16`` scales the loss."""
    compile: bool = False
    """Run training steps through ``torch.compile``: minutes of preparation, then faster steps. For one process."""
    batch_norm: Literal["exact", "sync", "local", "frozen"] = "exact"
    """``frozen`` normalises by the statistics of the initial weights and keeps them, in blocks that learn too: for small
    batches or few images. The others use those of each batch, and differ with several ranks: ``exact`` takes the global
    batch on any device, ``sync`` too with torch's SyncBatchNorm (GPUs only, and padding counts), ``local`` the rows of each
    rank, which is faster and gives another result than one process."""
    time_budget: Annotated[float, BeforeValidator(parse_duration)] | None = Field(default=None, gt=0)
    """Seconds, or ``30m``, ``2h``: no further epoch begins after this time of training and validation, earlier runs
    included; the best weights so far are kept and tested. Schedules know nothing of it."""

    @model_validator(mode="after")
    def _check_what_learns(self) -> Self:
        defaults = {
            key: type(self).model_fields[key].default for key in ("fine_tune_from", "unfreeze", "lora")
        }
        given = [key for key, default in defaults.items() if getattr(self, key) != default]
        if len(given) > 1:
            raise ValueError(f"{given[1]}: expected no {given[0]} beside it, got both; remove one of them")
        if self.unfreeze is not None:
            check_stages(self.unfreeze)
        return self

    @property
    def trains_backbone(self) -> bool:
        """Whether anything but the head learns in any epoch."""
        return self.lora is not None or any(stage.start != HEAD for stage in self.stages)

    @property
    def stages(self) -> tuple[UnfreezeStage, ...]:
        """What learns from which epoch on; a single stage unless there is ``unfreeze``."""
        if self.unfreeze is not None:
            return self.unfreeze
        whole = HEAD if self.lora is not None else self.fine_tune_from or HEAD
        return (UnfreezeStage(epoch=0, start=whole),)


LATER_KEYS: dict[str, Any] = {
    "average": None,
    "feature_dtype": None,
    "unfreeze": None,
    "lora": None,
    "accumulate": 1,
    "clip_norm": None,
    "ema": None,
    "precision": "float32",
    "compile": False,
    "batch_norm": "exact",
    "optimizer.lr_mults": None,
    "optimizer.layer_decay": None,
    "optimizer.decay_1d": True,
    "schedule.min_lr": 0.0,
    "schedule.patience": 10,
    "schedule.power": 1.0,
    "schedule.warmup_share": 0.25,
    "plan.mix.until_epoch": None,
    "plan.progressive_size": None,
    "model.auxiliary_heads": False,
    "model.in_channels": None,
    "model.padding": "same",
}
"""Keys that older checkpoints lack, with the value that they had: a run is resumed only by a job with equal values."""


def is_later_default(key: str, value: Any) -> bool:
    """Return whether a key of a job's result, with dots, is one that older checkpoints lack and has its default."""
    return key in LATER_KEYS and bool(value == LATER_KEYS[key])
