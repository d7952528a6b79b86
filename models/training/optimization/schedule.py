"""Learning-rate schedules: functions of training progress and of the finished epochs, without a state of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from ....pipeline.config.checked_model import CheckedModel

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1e-5
"""First and last multiplier of ``one_cycle``, those of fastai's ``fit_one_cycle``."""
PLATEAU_THRESHOLD = 1e-4
"""Relative improvement below which an epoch counts as none, that of ``torch.optim.lr_scheduler.ReduceLROnPlateau``."""


class LRSchedule(CheckedModel):
    """Multiplier of every parameter's peak learning rate, set before each step.

    * ``constant``: the peak.
    * ``cosine``: half a cosine from the peak to ``min_lr``.
    * ``polynomial``: ``(1 - t) ** power`` from the peak to ``min_lr``; linear by default.
    * ``one_cycle``: half a cosine up from 1/25 of the peak during the first ``warmup_share`` of the run, then half a cosine
      down to 1e-5 of it (Smith, "Super-Convergence", 2018, with fastai's constants). Momentum stays.
    * ``step``: times ``step_factor`` after every ``step_epochs``.
    * ``plateau``: times ``step_factor`` after more than ``patience`` epochs in which the job's ``monitor`` has not improved.

    A time budget or early stop does not shorten a schedule.
    """

    kind: Literal["constant", "cosine", "polynomial", "one_cycle", "step", "plateau"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0)
    """Epochs of linear warm-up from 0."""
    min_lr: float = Field(default=0.0, ge=0)
    """Lowest learning rate of the head after the warm-up; other parts in proportion."""
    step_epochs: int = Field(default=30, ge=1)
    step_factor: float = Field(default=0.1, gt=0, le=1)
    patience: int = Field(default=10, ge=0)
    power: float = Field(default=1.0, gt=0)
    warmup_share: float = Field(default=0.25, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_warmup(self) -> LRSchedule:
        if self.kind == "one_cycle" and self.warmup_epochs:
            raise ValueError("warmup_epochs: expected 0 with one_cycle, whose warm-up is warmup_share, "
                             f"got {self.warmup_epochs:g}; remove it")  # fmt: skip
        return self

    @property
    def depends_on_epochs(self) -> bool:
        """Whether the multiplier depends on the number of epochs of the run."""
        return self.kind in ("cosine", "polynomial", "one_cycle")

    def factor(
        self,
        done_epochs: float,
        num_epochs: int,
        *,
        peak: float = 1.0,
        history: Sequence[Mapping[str, Any]] = (),
        monitor: str = "loss",
    ) -> float:
        """Return the multiplier of the peak learning rate.

        Args:
            done_epochs: progress, with a fraction.
            num_epochs: length of the run.
            peak: peak learning rate of the head, which ``min_lr`` is compared with.
            history: validation metrics of the finished epochs.
            monitor: the metric that ``plateau`` watches; a higher value is better unless it is the loss.
        """
        lowest = min(self.min_lr / peak, 1.0)
        if done_epochs < self.warmup_epochs:
            return done_epochs / self.warmup_epochs
        if self.kind == "step":
            return max(lowest, float(self.step_factor ** int(done_epochs // self.step_epochs)))
        if self.kind == "plateau":
            drops = num_plateaus(
                [row.get(monitor) for row in history], self.patience, is_loss=monitor == "loss"
            )
            return max(lowest, float(self.step_factor**drops))
        if self.kind == "constant":
            return 1.0
        length = max(num_epochs - self.warmup_epochs, 1e-9)
        done = min((done_epochs - self.warmup_epochs) / length, 1.0)
        if self.kind == "one_cycle":
            if done < self.warmup_share:
                return 1.0 - (1.0 - ONE_CYCLE_START) * _half_cosine(done / self.warmup_share)
            done = (done - self.warmup_share) / (1.0 - self.warmup_share)
            lowest = max(lowest, ONE_CYCLE_END)
        shape = (1.0 - done) ** self.power if self.kind == "polynomial" else _half_cosine(done)
        return lowest + (1.0 - lowest) * shape


def _half_cosine(done: float) -> float:
    """Fall from 1 to 0 over half a period."""
    return 0.5 * (1 + math.cos(math.pi * done))


def num_plateaus(values: Sequence[float | None], patience: int, *, is_loss: bool) -> int:
    """Count how often more than ``patience`` epochs in a row brought no new best value; the count restarts each time.

    Args:
        values: the metric after each epoch; an undefined one is no improvement.
        patience: epochs to wait.
        is_loss: whether lower is better.
    """
    best, waited, found = math.inf, 0, 0
    for value in values:
        cost = math.inf if value is None else value if is_loss else -value
        if cost < best - PLATEAU_THRESHOLD * abs(best) or (math.isinf(best) and cost < best):
            best, waited = cost, 0
        else:
            waited += 1
        if waited > patience:
            found, waited = found + 1, 0
    return found
