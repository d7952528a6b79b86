"""Training step, evaluation and running metrics, for one process or for data-parallel ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional

from ...pipeline.errors import PlanError, RunError
from ..zoo.forward import AUXILIARY_WEIGHT, eval_mode, split_outputs
from .distributed.context import DistributedContext
from .distributed.global_batch import global_batch
from .metrics import Metrics, accuracies, compute_metrics, log_odds
from .train_batch import TrainBatch, gather_slices


def compute_logits(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Run a classifier in the dtype of its parameters; returns its main output."""
    return split_outputs(module(inputs.to(parameter_dtype(module))))[0]


def parameter_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's parameters; float32 if it has none."""
    return next((parameter.dtype for parameter in module.parameters()), torch.float32)


@dataclass(frozen=True)
class Criterion:
    """Cross-entropy with class weights and label smoothing; mixed images contribute to both of their labels."""

    class_weights: torch.Tensor | None = None
    """float32, shape (classes,)."""
    label_smoothing: float = 0.0

    def __call__(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return the mean over labelled rows, weighted as in ``torch.nn.CrossEntropyLoss``; 0 if there are none."""
        return self.total(scores, batch) / self.weight(batch)

    def total(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return the weighted sum over labelled rows."""
        loss = self._losses(scores, batch.labels)
        if batch.mixed_labels is not None and batch.mixed_weights is not None:
            mixed = self._losses(scores, batch.mixed_labels)
            loss = torch.lerp(loss, mixed, batch.mixed_weights.to(loss.dtype))
        return loss.sum()

    def weight(self, batch: TrainBatch) -> torch.Tensor:
        """Return the normaliser of ``total``: the summed weights of labelled rows, never 0."""
        weight = self._weights(batch.labels)
        if batch.mixed_labels is not None and batch.mixed_weights is not None:
            mixed = self._weights(batch.mixed_labels)
            weight = torch.lerp(weight, mixed, batch.mixed_weights.to(weight.dtype))
        return weight.sum().clamp_min(TINY)

    def _losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            scores,
            labels,
            None if self.class_weights is None else self.class_weights.to(scores.dtype),
            reduction="none",
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )

    def _weights(self, labels: torch.Tensor) -> torch.Tensor:
        labelled = (labels >= 0).to(torch.float32 if self.class_weights is None else self.class_weights.dtype)
        return labelled if self.class_weights is None else labelled * self.class_weights[labels.clamp_min(0)]


TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class EvalResult:
    """Loss, metrics and throughput of one pass over a split."""

    loss: float | None
    metrics: Metrics
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
class RunningMetrics:
    """Running metrics of an epoch. The confusion matrix covers this rank's rows, the other fields those of all ranks."""

    confusion: torch.Tensor
    """int64, shape (classes * classes,), on the CPU."""
    loss: float = 0.0
    """Sum over the images."""
    num_read: int = 0
    seconds: float = 0.0
    """Wall time of the main rank, including waits for batches and earlier runs of the epoch."""

    @classmethod
    def empty(cls, num_classes: int) -> RunningMetrics:
        """Create empty metrics for a number of classes."""
        return cls(torch.zeros(num_classes * num_classes, dtype=torch.int64))

    def compute(self, dist: DistributedContext) -> EvalResult:
        """Compute the metrics of the epoch; a collective operation of all ranks."""
        side = math.isqrt(len(self.confusion))
        matrix = dist.all_reduce(self.confusion).view(side, side).numpy()
        num_measured = int(matrix.sum())
        metrics = Metrics(num_measured, self.num_read - num_measured, *accuracies(matrix), None, matrix)
        return EvalResult(
            self.loss / self.num_read if self.num_read else None, metrics, self.seconds, self.num_read
        )


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
        self, batch: TrainBatch, running: RunningMetrics, *, factor: float, checkpoint_requested: bool = False
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
        weight = self._criterion.weight(batch)
        local = (
            [float(weight), float(batch.num_images), float(checkpoint_requested and dist.is_main)]
            if dist.num_ranks > 1
            else []
        )
        summed = dist.all_reduce(torch.tensor(local, dtype=torch.float64)) if local else None
        num_images = batch.num_images if summed is None else int(summed[1])
        with global_batch(dist, len(batch), num_images):
            scores, auxiliary = self._scores(batch.inputs)
        total = self._criterion.total(scores, batch)
        for others in auxiliary:
            if others.requires_grad:
                total = total + AUXILIARY_WEIGHT * self._criterion.total(others, batch)
        loss = total / (weight if summed is None else float(summed[0]))
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
        counted = (batch.labels >= 0) & ~batch.replaced
        pairs = batch.labels[counted] * scores.shape[1] + scores.detach()[counted].argmax(dim=1)
        running.confusion += torch.bincount(pairs.cpu(), minlength=len(running.confusion))
        running.loss += value * num_images
        running.num_read += num_images
        return checkpoint_requested if summed is None else bool(summed[2])

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
    module: torch.nn.Module, batches: Iterable[TrainBatch], dist: DistributedContext | None = None
) -> EvalResult:
    """Evaluate a module in eval mode; the loss is cross-entropy without class weights or smoothing.

    Replaced and unlabelled rows and padding are excluded. Training flags are restored. Each rank passes its slices of
    the same batches, and all ranks return the result of the whole split.

    Raises:
        RunError: a score is not finite; raised on every rank.
    """
    started = perf_counter()
    dist = dist or DistributedContext()
    slices: list[TrainBatch] = []
    with eval_mode(module):
        for batch in batches:
            with torch.inference_mode():
                scores = compute_logits(module, batch.inputs)
            slices.append(replace(batch, inputs=scores))
    assert slices, "an evaluated split has rows: ClassifySpec.check"
    with torch.inference_mode():
        gathered = gather_slices([part.cpu() for part in slices], dist)
        return evaluate_logits(gathered.inputs, gathered.labels, gathered.replaced, perf_counter() - started)


def evaluate_logits(
    scores: torch.Tensor, labels: torch.Tensor, replaced: torch.Tensor, seconds: float
) -> EvalResult:
    """Compute loss and metrics from the scores of a whole split."""
    wrong = int((~scores.isfinite().all(dim=1)).sum())
    if wrong:
        raise RunError(
            f"evaluation: expected finite scores of the model, got NaN or infinity for {wrong} of {len(scores)} images; {DIVERGENCE_HINT}"
        )
    scores = scores.double()
    counted = (labels >= 0) & ~replaced
    loss = float(functional.cross_entropy(scores[counted], labels[counted])) if bool(counted.any()) else None
    metrics = compute_metrics(log_odds(scores.numpy()), labels.numpy(), replaced.numpy())
    return EvalResult(loss, metrics, seconds, len(labels))
