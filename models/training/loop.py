"""One epoch of learning, one pass of evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ...pipeline.batch import Batch
from ...pipeline.errors import RunError
from ..metrics import Metrics, measure, rates_of


@dataclass(frozen=True, slots=True)
class Examples:
    """What one step learns from."""

    inputs: torch.Tensor
    """float32: images (N, 3, H, W), or features as the head takes them."""
    labels: torch.Tensor
    """int64, shape (N,); -1 where there is none."""
    replaced: torch.Tensor
    """bool, shape (N,): these train, but are not measured."""
    partner_labels: torch.Tensor | None = None
    partner_weights: torch.Tensor | None = None
    padding: torch.Tensor | None = None
    """bool, shape (N,): rows that teach nothing, since their labels are -1, and are counted nowhere."""

    @property
    def num_images(self) -> int:
        """Examples without padding."""
        return len(self) if self.padding is None else len(self) - int(self.padding.sum())

    def __len__(self) -> int:
        return len(self.labels)


def examples_of(batch: Batch, device: torch.device) -> Examples:
    """Move a batch to the device the model is on.

    uint8 NHWC images become float32 NCHW in 0..1: a plan without ``Normalize`` trains on ``x / 255``.
    Images are laid out channels last, which convolutions prefer. Padding loses its labels.
    """
    padding = torch.from_numpy(batch.padding).to(device) if batch.padding.any() else None

    def labels_of(labels: torch.Tensor) -> torch.Tensor:
        moved = labels.to(device, non_blocking=True)
        return moved if padding is None else moved.masked_fill(padding, -1)

    images = batch.images.to(device, non_blocking=True)
    if images.dtype == torch.uint8:
        images = images.permute(0, 3, 1, 2).float().div_(255)
    return Examples(
        images.contiguous(memory_format=torch.channels_last),
        labels_of(batch.labels),
        torch.from_numpy(np.asarray(batch.replaced)).to(device),
        None if batch.partner_labels is None else labels_of(batch.partner_labels),
        None if batch.partner_weights is None else batch.partner_weights.to(device, non_blocking=True),
        padding,
    )


def scores_of(module: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Run a classifier; of the several outputs of an Inception in training, take the main one."""
    scores: Any = module(inputs)
    return scores if isinstance(scores, torch.Tensor) else scores.logits


@dataclass(frozen=True)
class Objective:
    """Cross-entropy with class weights and label smoothing; mixed images count for both their labels."""

    class_weights: torch.Tensor | None = None
    """float32, shape (classes,)."""
    label_smoothing: float = 0.0

    def __call__(self, scores: torch.Tensor, examples: Examples) -> torch.Tensor:
        """Return the mean over labelled rows, weighted as in ``torch.nn.CrossEntropyLoss``; 0 if none is."""
        loss, weight = self._terms(scores, examples.labels)
        if examples.partner_labels is not None and examples.partner_weights is not None:
            partner_loss, partner_weight = self._terms(scores, examples.partner_labels)
            share = examples.partner_weights
            loss, weight = torch.lerp(loss, partner_loss, share), torch.lerp(weight, partner_weight, share)
        return loss.sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)

    def _terms(self, scores: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = functional.cross_entropy(
            scores,
            labels,
            self.class_weights,
            reduction="none",
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )
        weight = (labels >= 0).float()
        if self.class_weights is not None:
            weight = weight * self.class_weights[labels.clamp_min(0)]
        return loss, weight


@dataclass(frozen=True)
class Outcome:
    """What one pass over a split gave."""

    loss: float | None
    metrics: Metrics
    seconds: float
    num_read: int

    def as_dict(self) -> dict[str, Any]:
        """Return loss, metrics and pace as JSON can hold them."""
        pace = {
            "images_per_s": round(self.num_read / max(self.seconds, 1e-9), 1),
            "seconds": round(self.seconds, 3),
        }
        return {"loss": self.loss, **self.metrics.as_dict(), **pace}


def train_epoch(
    module: torch.nn.Module,
    batches: Iterable[Examples],
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    *,
    factor: Callable[[int], float],
    num_classes: int,
) -> Outcome:
    """Learn from the batches of one epoch; training flags are the caller's.

    Args:
        module: the model, or its head where the batches hold features.
        batches: of one epoch.
        optimizer: every group has ``base_lr``.
        objective: the loss.
        factor: step number -> what ``base_lr`` is multiplied by.
        num_classes: columns of the scores.

    Raises:
        RunError: the loss is not finite.
    """
    started = perf_counter()
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64)
    total, num_read, num_measured = 0.0, 0, 0
    for step, examples in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step)
        scores = scores_of(module, examples.inputs)
        loss = objective(scores, examples)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise RunError(f"training: wanted a finite loss, got {value} at step {step}; lower optimizer.lr, "
                           "or add warmup_epochs")  # fmt: skip
        optimizer.step()
        measured = (examples.labels >= 0) & ~examples.replaced
        cells = examples.labels[measured] * num_classes + scores.detach()[measured].argmax(dim=1)
        confusion += torch.bincount(cells.cpu(), minlength=len(confusion))
        total += value * examples.num_images
        num_read += examples.num_images
        num_measured += int(measured.sum())
    matrix = confusion.view(num_classes, num_classes).numpy()
    metrics = Metrics(num_measured, num_read - num_measured, *rates_of(matrix), None, matrix)
    return Outcome(total / num_read if num_read else None, metrics, perf_counter() - started, num_read)


def evaluate(module: torch.nn.Module, batches: Iterable[Examples]) -> Outcome:
    """Measure a module in eval mode; the loss is the plain cross-entropy, without weights or smoothing.

    Replaced and unlabelled rows are left out. Training flags are left as they were.
    """
    started = perf_counter()
    flags = {part: part.training for part in module.modules()}
    module.eval()
    scores: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    replaced: list[torch.Tensor] = []
    try:
        for examples in batches:
            with torch.inference_mode():
                scores.append(scores_of(module, examples.inputs).float().cpu())
            labels.append(examples.labels.cpu())
            replaced.append(examples.replaced.cpu())
    finally:
        for part, flag in flags.items():
            part.training = flag
    assert scores, "the split that is evaluated has rows: the job checked it"
    with torch.inference_mode():
        return summarise(torch.cat(scores), torch.cat(labels), torch.cat(replaced), perf_counter() - started)


def summarise(scores: torch.Tensor, labels: torch.Tensor, replaced: torch.Tensor, seconds: float) -> Outcome:
    """Turn the scores of a whole split into its loss and metrics."""
    kept = (labels >= 0) & ~replaced
    loss = float(functional.cross_entropy(scores[kept], labels[kept])) if bool(kept.any()) else None
    metrics = measure(scores.softmax(dim=1).numpy(), labels.numpy(), replaced.numpy())
    return Outcome(loss, metrics, seconds, len(labels))
