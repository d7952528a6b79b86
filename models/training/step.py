"""Training step: forward and backward pass of a batch, and the update of the weights after every ``accumulate`` batches."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch

from ...pipeline.errors import PlanError
from ..zoo.forward import AUXILIARY_WEIGHT, split_outputs
from .distributed.context import DistributedContext
from .distributed.global_batch import global_batch
from .evaluation import EpochMetrics, parameter_dtype
from .optimization.ema import AveragedWeights
from .optimization.loss_log import LossLog
from .optimization.memory_error import explain_out_of_memory
from .optimization.options import UpdateOptions
from .tasks.task import Criterion
from .train_batch import TrainBatch

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class UpdateGroup:
    """The batches whose gradients are averaged for one update of the weights."""

    number: int = 0
    """Updates of the run before this one."""
    size: int = 1
    """Number of batches; the last group of an epoch may be smaller than ``accumulate``."""
    is_complete: bool = True
    """Whether the current batch is the last of them."""
    done_epochs: float = 0.0
    """Progress of the run in the middle of the group."""

    @classmethod
    def of(cls, epoch: int, step: int, num_steps: int, accumulate: int) -> UpdateGroup:
        """Return the group of a batch.

        Args:
            epoch: of the batch, counted from 0.
            step: of the batch within the epoch.
            num_steps: batches per epoch.
            accumulate: batches per update.
        """
        index, first = step // accumulate, step - step % accumulate
        size = min(accumulate, num_steps - first)
        number = epoch * -(-num_steps // accumulate) + index
        return cls(number, size, step == first + size - 1, epoch + (first + size / 2) / num_steps)


class TrainStep:
    """Gradients of one batch, and the update that they are part of. Training mode is set by the caller.

    Args:
        module: the model, or its head if the batches hold features.
        optimizer: every parameter group has ``base_lr``.
        criterion: loss. It is normalised over the global batch, so that ranks do not average averages.
        dist: ranks that share the batches.
        options: precision, clipping and the rest.
        average: average of the weights, to be updated after them.
        scaler: scale of the loss, for float16.
        log: losses of the steps; by default one that is deferred on a GPU.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Criterion,
        dist: DistributedContext | None = None,
        options: UpdateOptions | None = None,
        average: AveragedWeights | None = None,
        scaler: torch.amp.GradScaler | None = None,
        log: LossLog | None = None,
    ) -> None:
        self._dist = dist or DistributedContext()
        self._options = options or UpdateOptions()
        compiled: Any = torch.compile(module, dynamic=False) if self._options.compile else module
        self._module = self._dist.wrap_ddp(compiled)
        self._optimizer = optimizer
        self._criterion = criterion
        self._average = average
        self._scaler = scaler
        self._log = log or LossLog(is_deferred=self._dist.device.type == "cuda")
        self._begun: UpdateGroup | None = None
        """Group whose gradients are not applied yet."""
        self._factor = 1.0

    def __call__(
        self,
        batch: TrainBatch,
        running: EpochMetrics,
        *,
        factor: float,
        group: UpdateGroup = UpdateGroup(),
        num_images: int | None = None,
    ) -> None:
        """Add the gradients of a batch, update the weights if it completes its group, and update the running metrics.

        On a GPU the host waits for no result; ``flush`` waits for those of all steps since the last.

        Args:
            batch: rows of this rank.
            running: metrics to update.
            factor: multiplier of ``base_lr``.
            group: the batches of one update, all passed in order.
            num_images: images of the batch over all ranks, without padding; None for those of the batch alone.

        Raises:
            RunError: the loss or a gradient is not finite, on every rank; or the batch does not fit in memory.
            PlanError: the batch has one image, on which BatchNorm cannot train.
        """
        if self._begun is not None and self._begun.number != group.number:
            self._update()  # the last batch of that group was skipped
        if self._begun is None:
            self._optimizer.zero_grad(set_to_none=True)
        self._begun, self._factor = group, factor
        num_images = batch.num_images if num_images is None else num_images
        weights = self._sum_over_ranks(self._criterion.weights(batch))
        probe = partial(self._probe, weights=weights)
        accumulate, is_alone = self._options.accumulate, self._dist.num_ranks == 1
        with (
            explain_out_of_memory(batch, probe, accumulate=accumulate, is_alone=is_alone),
            self._reduced(group),
        ):
            scores, loss = self._forward_backward(batch, weights, num_images, group.size)
        self._log.add(batch, scores, num_images, self._dist.all_reduce(loss), running)
        if group.is_complete:
            self._update()

    def flush(self, running: EpochMetrics) -> None:
        """Check the losses that are still on the device, and update the running metrics; waits for the device.

        Raises:
            RunError: a loss or a gradient is not finite, on every rank.
        """
        self._log.flush(running)

    def end_epoch(self, running: EpochMetrics) -> None:
        """Apply the gradients of a group whose last batch was skipped, and ``flush``."""
        if self._begun is not None:
            self._update()
        self.flush(running)

    def _sum_over_ranks(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the normaliser of each loss term, summed in float64."""
        if self._dist.num_ranks == 1:
            return weights
        return self._dist.all_reduce(weights.double()).to(weights)

    def _forward_backward(
        self, batch: TrainBatch, weights: torch.Tensor, num_images: int, group_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the batch's share of the group's gradient; returns scores and loss, detached."""
        with global_batch(self._dist, len(batch), num_images, norm=self._options.batch_norm == "exact"):
            scores, auxiliary = self._scores(batch.inputs)
        totals = self._criterion.totals(scores, batch)
        for others in auxiliary:
            if others.requires_grad:
                totals = totals + AUXILIARY_WEIGHT * self._criterion.totals(others, batch)
        loss = (totals / weights.to(totals)).sum()
        share = loss * (self._dist.num_ranks / group_size)  # ranks take the mean
        (share if self._scaler is None else self._scaler.scale(share)).backward()  # type: ignore[no-untyped-call]
        return scores.detach(), loss.detach()

    def _scores(self, inputs: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the output of the model and those of its auxiliary heads."""
        dtype = AUTOCAST.get(self._options.precision)
        try:
            with torch.autocast(inputs.device.type, dtype, enabled=dtype is not None):
                scores, auxiliary = split_outputs(self._module(inputs.to(parameter_dtype(self._module))))
        except ValueError as error:
            if len(inputs) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise PlanError(
                "batch.size: expected at least 2 images in a step, since BatchNorm needs more than one value per channel, "
                "got 1; raise batch.size, use larger images, or train only the head (remove fine_tune_from)"
            ) from error
        if dtype is None:
            return scores, [*auxiliary]
        return scores.float(), [others.float() for others in auxiliary]

    def _update(self) -> None:
        """Update the weights, and their average, with the gradients of the begun group."""
        group, self._begun = self._begun, None
        assert group is not None
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = parameters["base_lr"] * self._factor
        learning = [p for parameters in self._optimizer.param_groups for p in parameters["params"]]
        learning = [parameter for parameter in learning if parameter.grad is not None]
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in learning])
        if self._scaler is None:
            self._log.check_norm(norm)
        if self._options.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(learning, self._options.clip_norm, norm)
        if self._scaler is None:
            self._optimizer.step()
        else:
            self._scaler.step(self._optimizer)  # skipped where the scaled gradients overflow
            self._scaler.update()
        if self._average is not None:
            self._average.update(group.number)

    def _probe(self, part: TrainBatch, weights: torch.Tensor) -> None:
        """Run a part of a batch forward and backward, to measure whether it fits in memory."""
        self._optimizer.zero_grad(set_to_none=True)
        self._forward_backward(part, weights, part.num_images, 1)
        self._optimizer.zero_grad(set_to_none=True)

    def _reduced(self, group: UpdateGroup) -> AbstractContextManager[Any]:
        """Sum gradients over ranks with the last batch of a group only."""
        if group.is_complete or self._dist.num_ranks == 1:
            return nullcontext()
        return cast("torch.nn.parallel.DistributedDataParallel", self._module).no_sync()
