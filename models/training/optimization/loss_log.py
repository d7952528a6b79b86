"""Losses and metrics of the steps of an epoch; on a GPU without waiting for the device after each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ....pipeline.errors import RunError
from ....pipeline.text import first_few

if TYPE_CHECKING:
    from ..evaluation import EpochMetrics
    from ..train_batch import TrainBatch

MAX_PENDING = 50
"""Steps on a GPU between two checks."""
MAX_PENDING_BYTES = 2**26
"""Outputs of steps that are kept on the GPU between two checks."""
DIVERGENCE_HINT = "lower optimizer.lr, or add schedule.warmup_epochs"


@dataclass
class _Step:
    number: int
    keys: Sequence[str]
    num_images: int
    outputs: TrainBatch
    """The batch, with the outputs of the model as inputs."""
    loss: torch.Tensor
    norm: torch.Tensor | None = None
    """Norm of the gradient, if the step updates the weights."""


@dataclass
class LossLog:
    """Adds up losses and metrics, and raises for the first step whose loss or gradient is not finite.

    On a CPU each step is checked before its update. On a GPU steps are checked after ``MAX_PENDING`` of them and before a
    checkpoint is written, so that the last checkpoint is good.
    """

    is_deferred: bool = False
    """Whether steps are on a device that should not be waited for after each of them."""
    _pending: list[_Step] = field(default_factory=list)
    _last: _Step | None = None

    def add(
        self,
        batch: TrainBatch,
        scores: torch.Tensor,
        num_images: int,
        loss: torch.Tensor,
        running: EpochMetrics,
    ) -> None:
        """Add the loss of a step.

        Args:
            batch: the batch.
            scores: outputs of the model for it.
            num_images: images of the step, over all ranks.
            loss: scalar, over all ranks.
            running: updated, now or by ``flush``.

        Raises:
            RunError: the loss of this step, or of an earlier one, is not finite.
        """
        num_bytes = (len(self._pending) + 1) * scores.numel() * scores.element_size()
        if len(self._pending) >= MAX_PENDING or num_bytes > MAX_PENDING_BYTES:
            self.flush(running)
        self._last = _Step(batch.step, batch.keys, num_images, replace(batch, inputs=scores), loss)
        self._pending.append(self._last)
        if not self.is_deferred:
            self.flush(running)

    def check_norm(self, norm: torch.Tensor) -> None:
        """Check the norm of the gradient that the last step applies.

        Raises:
            RunError: it is not finite.
        """
        assert self._last is not None, "a gradient is that of a step"
        if self.is_deferred:
            self._last.norm = norm
        else:
            _check_finite(self._last, "finite gradients", "a norm of ", float(norm))

    def flush(self, running: EpochMetrics) -> None:
        """Check and add the steps that are still on the device; waits for it.

        Raises:
            RunError: a loss or gradient is not finite.
        """
        if not self._pending:
            return
        steps, self._pending = self._pending, []
        zero = steps[0].loss.new_zeros(())
        norms = [zero if step.norm is None else step.norm.to(zero) for step in steps]
        losses, gradients = torch.stack(
            [torch.stack([step.loss for step in steps]), torch.stack(norms)]
        ).tolist()
        for step, loss, norm in zip(steps, losses, gradients, strict=True):
            _check_finite(step, "a finite loss", "", loss)
            _check_finite(step, "finite gradients", "a norm of ", norm)
            running.loss += loss * step.num_images
            running.num_read += step.num_images
            running.metrics.update(step.outputs.inputs, step.outputs)


def _check_finite(step: _Step, what: str, of: str, value: float) -> None:
    if not math.isfinite(value):
        images = f" with {first_few([*map(repr, step.keys)])}" if step.keys else ""
        raise RunError(
            f"training: expected {what}, got {of}{value} at step {step.number}{images}; {DIVERGENCE_HINT}"
        )
