"""Training and validation data of a run: images, or features computed once by a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

import numpy as np
import torch

from ...pipeline.batch.batch import Batch
from ...pipeline.errors import ModelError
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.rng import derive_seed, numpy_generator
from ..zoo.build import head_module
from .distributed.context import DistributedContext
from .evaluation import compute_logits
from .train_batch import Targets, TrainBatch, gather_slices, label_targets, local_batches, to_train_batch


class TrainData(Protocol):
    """Source of the training epochs and of the validation split."""

    @property
    def module(self) -> torch.nn.Module:
        """Module to train: the model, or its head if the batches hold features."""
        ...

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield the remaining training batches of an epoch; call in order of epochs."""
        ...

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the batches of the validation split."""
        ...


def split_batches(
    context: Context,
    plan: Plan,
    split: str,
    device: torch.device,
    dist: DistributedContext | None = None,
    targets: Callable[[Batch], Targets] = label_targets,
) -> Iterator[TrainBatch]:
    """Yield the batches of a split, in order and without augmentation; this rank's slices if there are several."""
    dist = dist or DistributedContext()
    with context.engine.feed(plan, dist.local_view(View(split=split))) as feed:
        for batch in context.console.track(feed, split):
            if len(batch):
                yield to_train_batch(batch, device, targets)


class ImageTrainData:
    """Images: every epoch runs them through the whole model."""

    def __init__(
        self,
        module: torch.nn.Module,
        plan: Plan,
        validation_split: str,
        feed: Feed,
        context: Context,
        device: torch.device,
        dist: DistributedContext,
        targets: Callable[[Batch], Targets] = label_targets,
    ) -> None:
        self._targets = targets
        self.module = module
        self._plan = plan
        self._validation_split = validation_split
        self._context = context
        self._device = device
        self._dist = dist
        self._batches = iter(context.console.track(feed, "train"))
        self._next_batch: Batch | None = None
        """First batch of the next epoch, already taken from the feed."""

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield the feed's batches of this epoch."""
        while (batch := self._next_batch or next(self._batches, None)) is not None:
            self._next_batch = batch if batch.epoch != epoch else None
            if self._next_batch is not None:
                return
            if self._is_trainable(batch):
                yield to_train_batch(batch, self._device, self._targets)

    def _is_trainable(self, batch: Batch) -> bool:
        """Return False for a batch that errors have reduced to one image, on which BatchNorm cannot train."""
        return len(batch) > 1 or batch.num_skipped == 0

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the batches of the validation split."""
        return split_batches(
            self._context, self._plan, self._validation_split, self._device, self._dist, self._targets
        )


@dataclass(frozen=True)
class FeatureTrainData:
    """Features: the frozen backbone runs once over every pass of the feed, and epochs train the head alone.

    Epoch e uses pass e modulo the number of passes, shuffled by (seed, e). Each rank computes the features of its
    slices; all ranks hold all features.
    """

    module: torch.nn.Module
    plan: Plan
    passes: tuple[TrainBatch, ...]
    validation_features: TrainBatch
    dist: DistributedContext

    @classmethod
    def collect(
        cls,
        model: torch.nn.Module,
        plan: Plan,
        validation_split: str,
        feed: Feed,
        context: Context,
        device: torch.device,
        dist: DistributedContext,
        targets: Callable[[Batch], Targets] = label_targets,
    ) -> FeatureTrainData:
        """Compute the features of the feed and of the validation split.

        They stay on the device: 4 bytes times their width (1280 for EfficientNet-Lite0) per image.

        Raises:
            ModelError: the model applies further operations after its head.
        """
        batches = context.console.track(feed, "features")
        model.eval()
        passes = tuple(
            extract_features(
                model, (to_train_batch(batch, device, targets) for batch in group if len(batch)), dist
            )
            for _, group in groupby(batches, key=lambda batch: batch.epoch)
        )
        validation_features = extract_features(
            model, split_batches(context, plan, validation_split, device, dist, targets), dist
        )
        return cls(head_module(model)[1], plan, passes, validation_features, dist)

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield shuffled features."""
        full = self.passes[epoch % len(self.passes)]
        order = numpy_generator(derive_seed("features", self.plan.seed, epoch, "")).permutation(len(full))
        return local_batches(full, order, self.plan.batch.size, self.dist)

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the validation features as one batch."""
        return local_batches(
            self.validation_features,
            np.arange(len(self.validation_features)),
            len(self.validation_features),
            self.dist,
        )


def extract_features(
    model: torch.nn.Module, batches: Iterator[TrainBatch], dist: DistributedContext
) -> TrainBatch:
    """Compute the input of the head for every image of all ranks. The model has to be in eval mode."""
    _, head = head_module(model)
    parts: list[TrainBatch] = []
    for batch in batches:
        with torch.no_grad(), capture_inputs(head) as captured:
            scores = compute_logits(model, batch.inputs)
        if not parts:
            check_head(head, captured[0], scores)
        parts.append(replace(batch, inputs=captured[0]))
    return gather_slices(parts, dist)


@contextmanager
def capture_inputs(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record the inputs of a module within the context."""
    captured: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: captured.append(arguments[0]))
    try:
        yield captured
    finally:
        handle.remove()


@torch.no_grad()
def check_head(head: torch.nn.Module, features: torch.Tensor, scores: torch.Tensor) -> None:
    """Check that the head is the last operation of the model.

    Raises:
        ModelError: it is not, for example a convolutional head with pooling after it.
    """
    again = head(features)
    if again.shape != scores.shape or not torch.allclose(again, scores, rtol=1e-3, atol=1e-4):
        raise ModelError("feature_passes: expected a model that ends in its head, got one with operations after it; "
                         "leave feature_passes out: the whole model then runs every epoch")  # fmt: skip
