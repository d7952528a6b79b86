"""Training and validation data of a run: images, or features that the frozen part of a model computes once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import torch

from ...pipeline.batch.batch import Batch
from ...pipeline.jobs.contracts import Context, Feed
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ..features.feature_cache import FeatureCache
from ..features.split_features import SplitFeatures
from .distributed.context import DistributedContext
from .train_batch import Targets, TrainBatch, label_targets, to_train_batch


class TrainData(Protocol):
    """Source of the training epochs and of the validation split."""

    @property
    def module(self) -> torch.nn.Module:
        """Module to train: the model, or the part of it that follows the features in the batches."""
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


class FeatureTrainData:
    """Features: the frozen part of the model runs once for every image and pass, and epochs train what follows it.

    Epochs have the batches of ``ImageTrainData``, bad images included; epoch e uses the features of pass e modulo the number
    of passes.

    Args:
        module: the part of the model behind the features.
        features: computes or finds the features.
        view: of the training split, all epochs of it.
        passes: number of augmented passes; 0 for images as in evaluation.
        validation_split: name of the split.
        start: epoch and step of the first batch.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        features: FeatureCache,
        view: View,
        *,
        passes: int,
        validation_split: str,
        start: tuple[int, int],
        targets: Callable[[Batch], Targets] = label_targets,
    ) -> None:
        self._targets = targets
        self.module = module
        self._features = features
        self._passes: list[SplitFeatures | None] = [None] * max(1, passes)
        self._is_augmented = passes > 0
        self._view = view
        self._validation_split = validation_split
        self._start = start
        self._validation: SplitFeatures | None = None

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield the batches of an epoch."""
        number = epoch % len(self._passes)
        found = self._passes[number]
        if found is None:
            found = self._features.open(self._view.split, number if self._is_augmented else None)
            self._passes[number] = found
        first = self._start[1] if epoch == self._start[0] else 0
        return found.batches(replace(self._view, first_epoch=epoch, num_epochs=1), self._targets, first)

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the batches of the validation split."""
        if self._validation is None:
            self._validation = self._features.open(self._validation_split)
        return self._validation.batches(View(split=self._validation_split), self._targets)
