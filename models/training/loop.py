"""Training step, evaluation and running metrics, for one process or for data-parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from ...pipeline.errors import PlanError, RunError
from ..zoo.forward import AUXILIARY_WEIGHT, eval_mode, split_outputs
from .distributed.context import DistributedContext
from .distributed.global_batch import global_batch
from .tasks.task import Criterion, MetricResult, RunningMetrics, Task, measured
from .train_batch import TrainBatch, padding_mask


def compute_logits(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Run a classifier in the dtype of its parameters; returns its main output."""
    return split_outputs(module(inputs.to(parameter_dtype(module))))[0]


def parameter_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's parameters; float32 if it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


@dataclass(frozen=True)
class EvalResult:
    """Loss, metrics and throughput of one pass over a split."""

    loss: float | None
    metrics: MetricResult
    seconds: float
    num_read: int

    def as_dict(self) -> dict[str, Any]:
        """Return loss, metrics and throughput as JSON types."""
        speed = {
            "images_per_s": round(self.num_read / max(self.seconds, 1e-9), 1),
            "seconds": round(self.seconds, 3),
        }
        return {"loss": self.loss, **self.metrics.as_dict(), **speed}


@dataclass
class EpochMetrics:
    """Running metrics of an epoch. ``metrics`` covers this rank's rows, the other fields those of all ranks."""

    metrics: RunningMetrics
    loss: float = 0.0
    """Sum over the images."""
    num_read: int = 0
    seconds: float = 0.0
    """Wall time of the main rank, including waits for batches and earlier runs of the epoch."""

    def compute(self, dist: DistributedContext) -> EvalResult:
        """Compute the metrics of the epoch; a collective operation of all ranks."""
        loss = self.loss / self.num_read if self.num_read else None
        return EvalResult(loss, self.metrics.compute(dist, self.num_read), self.seconds, self.num_read)


class TrainStep:
    """Optimization step of a module. Training mode is set by the caller.

    Args:
        module: the model, or its head if the batches hold features.
        optimizer: every parameter group has ``base_lr``.
        criterion: loss. It is normalised over the global batch, so that ranks do not average averages.
        dist: ranks that share the batches.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Criterion,
        dist: DistributedContext | None = None,
    ) -> None:
        self._dist = dist or DistributedContext()
        self._module = self._dist.wrap_ddp(module)
        self._optimizer = optimizer
        self._criterion = criterion

    def __call__(
        self, batch: TrainBatch, running: EpochMetrics, *, factor: float, checkpoint_requested: bool = False
    ) -> bool:
        """Run one optimization step and update the running metrics.

        Args:
            batch: rows of this rank.
            running: metrics to update.
            factor: multiplier of ``base_lr``.
            checkpoint_requested: whether a checkpoint is due; only the main rank's value counts.

        Returns:
            The main rank's ``checkpoint_requested``, on every rank.

        Raises:
            RunError: the loss or a gradient is not finite; raised on every rank.
            PlanError: the batch has one image, on which BatchNorm cannot train.
        """
        dist = self._dist
        for group in self._optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        weights, summed = self._criterion.weights(batch), None
        if dist.num_ranks > 1:
            local = [float(batch.num_images), float(checkpoint_requested and dist.is_main), *weights.tolist()]
            summed = dist.all_reduce(torch.tensor(local, dtype=torch.float64))
            weights = summed[2:].to(weights)
        num_images = batch.num_images if summed is None else int(summed[0])
        with global_batch(dist, len(batch), num_images):
            scores, auxiliary = self._scores(batch.inputs)
        totals = self._criterion.totals(scores, batch)
        for others in auxiliary:
            if others.requires_grad:
                totals = totals + AUXILIARY_WEIGHT * self._criterion.totals(others, batch)
        loss = (totals / weights.to(totals)).sum()
        self._optimizer.zero_grad(set_to_none=True)
        (loss * dist.num_ranks).backward()  # type: ignore[no-untyped-call]  # ranks take the mean
        value = float(dist.all_reduce(loss.detach()))
        if not math.isfinite(value):
            raise RunError(
                f"training: expected a finite loss, got {value} at step {batch.step}; {DIVERGENCE_HINT}"
            )
        if not math.isfinite(norm := self._gradient_norm()):
            raise RunError(
                f"training: expected finite gradients, got a norm of {norm} at step {batch.step}; {DIVERGENCE_HINT}"
            )
        self._optimizer.step()
        running.metrics.update(scores.detach(), batch)
        running.loss += value * num_images
        running.num_read += num_images
        return checkpoint_requested if summed is None else bool(summed[1])

    def _scores(self, inputs: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits and those of the auxiliary heads."""
        try:
            return split_outputs(self._module(inputs.to(parameter_dtype(self._module))))
        except ValueError as error:
            if len(inputs) > 1 or "more than 1 value per channel" not in str(error):
                raise
            raise PlanError(
                "batch.size: expected at least 2 images in a step, since BatchNorm needs more than one value per channel, "
                "got 1; raise batch.size, use larger images, or train only the head (remove fine_tune_from)"
            ) from error

    def _gradient_norm(self) -> float:
        """Return the norm of all gradients; equal on every rank."""
        gradients = [
            parameter.grad
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


DIVERGENCE_HINT = "lower optimizer.lr, or add schedule.warmup_epochs"


def evaluate(
    module: torch.nn.Module,
    batches: Iterable[TrainBatch],
    task: Task,
    num_rows: int,
    dist: DistributedContext | None = None,
) -> EvalResult:
    """Evaluate a module in eval mode; the loss is the task's without class weights or smoothing.

    Replaced rows, rows without a target and padding are excluded. Training flags are restored. Each rank passes its slices
    of the same batches, and all ranks return the result of the whole split.

    Args:
        module: the model, or its head if the batches hold features.
        batches: of the split.
        task: loss and metrics.
        num_rows: rows of the split, over all ranks.
        dist: ranks that share the batches.

    Raises:
        RunError: a score is not finite; raised on every rank.
    """
    started = perf_counter()
    dist = dist or DistributedContext()
    metrics: RunningMetrics = task.running_metrics(num_rows)
    criterion: Criterion | None = None
    sums, terms = torch.zeros(2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    with eval_mode(module), torch.inference_mode():
        for batch in batches:
            scores = compute_logits(module, batch.inputs)
            wrong = ~scores.flatten(1).isfinite().all(dim=1) & ~padding_mask(batch)
            sums += torch.tensor([batch.num_images, int(wrong.sum())], dtype=torch.float64)
            if sums[1]:
                continue
            metrics.update(scores, batch)
            counted = measured(batch)
            if criterion is None:
                criterion = task.criterion(training=False, like=scores)
            both = [criterion.totals(scores, counted), criterion.weights(counted)]
            part = torch.stack([each.double() for each in both]).cpu()
            terms = terms + part if terms.numel() else part
        assert terms.numel() or sums[1], "an evaluated split has rows: TrainSpec.check"
        num_read, num_wrong = (int(value) for value in dist.all_reduce(sums))
        if num_wrong:
            raise RunError(
                f"evaluation: expected finite scores of the model, got NaN or infinity for {num_wrong} of {num_read} images; "
                f"{DIVERGENCE_HINT}"
            )
        totals, weights = dist.all_reduce(terms)
        result = metrics.compute(dist, num_read)
    loss = float((totals / weights).sum()) if result.num_images else None
    return EvalResult(loss, result, perf_counter() - started, num_read)
