"""Evaluation of a model, and the running metrics of an epoch, for one process or for data-parallel ranks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from ...pipeline.errors import RunError
from ..zoo.forward import eval_mode, split_outputs
from .distributed.context import DistributedContext
from .optimization.loss_log import DIVERGENCE_HINT
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
