"""What a run learns from: images through the whole model, or features that a frozen trunk gave once."""

from __future__ import annotations

from collections.abc import Iterator
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
from ...pipeline.rng import keyed_bits, keyed_generator
from ..zoo.build import head_module
from .distributed.context import DistributedContext
from .loop import compute_logits
from .train_batch import TrainBatch, gather_slices, local_batches, to_train_batch


class TrainData(Protocol):
    """The epochs that are learnt from and the split that is measured after each."""

    @property
    def module(self) -> torch.nn.Module:
        """What turns the examples into scores."""
        ...

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield the training batches that are left of an epoch; epochs are asked for in order."""
        ...

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the batches of the validation split."""
        ...


def split_batches(
    context: Context, plan: Plan, split: str, device: torch.device, dist: DistributedContext | None = None
) -> Iterator[TrainBatch]:
    """Open a split of a plan, in order and without augmentation, and yield its batches, or a rank's slices of them."""
    dist = dist or DistributedContext()
    with context.engine.feed(plan, dist.local_view(View(split=split))) as feed:
        for batch in context.console.track(feed, split):
            if len(batch):
                yield to_train_batch(batch, device)


class ImageTrainData:
    """Every epoch runs its images through the whole model."""

    def __init__(
        self,
        module: torch.nn.Module,
        plan: Plan,
        validation_split: str,
        feed: Feed,
        context: Context,
        device: torch.device,
        dist: DistributedContext,
    ) -> None:
        self.module = module
        self._plan = plan
        self._validation_split = validation_split
        self._context = context
        self._device = device
        self._dist = dist
        self._batches = iter(context.console.track(feed, "train"))
        self._next_batch: Batch | None = None
        """A batch of the next epoch, met where the end of one was looked for."""

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield the feed's batches as long as they are of this epoch."""
        while (batch := self._next_batch or next(self._batches, None)) is not None:
            self._next_batch = batch if batch.epoch != epoch else None
            if self._next_batch is not None:
                return
            if self._is_trainable(batch):
                yield to_train_batch(batch, self._device)

    def _is_trainable(self, batch: Batch) -> bool:
        """Pass over a batch of which one image is left: BatchNorm cannot learn of it."""
        return len(batch) > 1 or batch.num_skipped == 0

    def validation(self) -> Iterator[TrainBatch]:
        """Yield the batches of the validation split."""
        return split_batches(self._context, self._plan, self._validation_split, self._device, self._dist)


@dataclass(frozen=True)
class FeatureTrainData:
    """The trunk runs once over every image of every pass of the feed; epochs then cost next to nothing.

    Epoch e learns from pass e modulo the number of passes, shuffled by (seed, e). Of several ranks each runs the trunk
    over its slices, and all get all features.
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
    ) -> FeatureTrainData:
        """Run the trunk over the feed and over the validation split.

        Features are kept on the device: 4 bytes times their width (1280 for EfficientNet-Lite0) an image.

        Raises:
            ModelError: the scores are not simply the head of some features.
        """
        batches = context.console.track(feed, "features")
        model.eval()
        passes = tuple(
            extract_features(model, (to_train_batch(batch, device) for batch in group if len(batch)), dist)
            for _, group in groupby(batches, key=lambda batch: batch.epoch)
        )
        validation_features = extract_features(
            model, split_batches(context, plan, validation_split, device, dist), dist
        )
        return cls(head_module(model)[1], plan, passes, validation_features, dist)

    def epoch(self, epoch: int) -> Iterator[TrainBatch]:
        """Yield shuffled features."""
        whole = self.passes[epoch % len(self.passes)]
        order = keyed_generator(keyed_bits("features", self.plan.seed, epoch, "")).permutation(len(whole))
        return local_batches(whole, order, self.plan.batch.size, self.dist)

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
    """Return what reaches the head for each example of all ranks; the model is in eval mode and stays as it was."""
    _, head = head_module(model)
    parts: list[TrainBatch] = []
    for examples in batches:
        with torch.no_grad(), capture_inputs(head) as captured:
            scores = compute_logits(model, examples.inputs)
        if not parts:
            check_head(head, captured[0], scores)
        parts.append(replace(examples, inputs=captured[0]))
    return gather_slices(parts, dist)


@contextmanager
def capture_inputs(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what a module is given while the context lasts."""
    captured: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: captured.append(arguments[0]))
    try:
        yield captured
    finally:
        handle.remove()


@torch.no_grad()
def check_head(head: torch.nn.Module, features: torch.Tensor, scores: torch.Tensor) -> None:
    """Check that the head of the features is the model's answer, with nothing behind it.

    Raises:
        ModelError: it is not, as where a convolution is the head and pooling follows.
    """
    again = head(features)
    if again.shape != scores.shape or not torch.allclose(again, scores, rtol=1e-3, atol=1e-4):
        raise ModelError("feature_passes: expected a model that ends in its head, got one that goes on; "
                         "leave feature_passes out: the whole model then runs every epoch")  # fmt: skip
