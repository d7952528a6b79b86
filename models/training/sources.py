"""What a run learns from: images through the whole model, or features that a frozen trunk gave once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Protocol

import torch

from ...pipeline.batch import Batch
from ...pipeline.errors import ModelError
from ...pipeline.jobs import Context, Feed
from ...pipeline.keys import keyed_bits, keyed_generator
from ...pipeline.plan import Plan
from ...pipeline.view import View
from ..zoo import head_module
from .loop import Examples, examples_of, scores_of


class Lessons(Protocol):
    """The epochs that are learnt from and the split that is measured after each."""

    @property
    def module(self) -> torch.nn.Module:
        """What turns the examples into scores."""
        ...

    def epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[Examples]]]:
        """Yield the training batches, epoch by epoch."""
        ...

    def validation(self) -> Iterator[Examples]:
        """Yield the batches of the validation split."""
        ...


def split_batches(context: Context, plan: Plan, split: str, device: torch.device) -> Iterator[Examples]:
    """Open a split of a plan, in order and without augmentation, and yield its batches."""
    with context.engine.feed(plan, View(split=split)) as feed:
        for batch in context.console.track(feed, split):
            if batch.num_images:
                yield examples_of(batch.without_padding(), device)


@dataclass(frozen=True)
class ImageLessons:
    """Every epoch runs its images through the whole model."""

    module: torch.nn.Module
    plan: Plan
    validation_split: str
    feed: Feed
    context: Context
    device: torch.device

    def epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[Examples]]]:
        """Yield the feed's batches epoch by epoch; epochs that are not wanted are passed over."""
        batches = self.context.console.track(self.feed, "train")
        for epoch, group in groupby(batches, key=lambda batch: batch.epoch):
            if epoch in epochs:
                yield epoch, (examples_of(batch, self.device) for batch in group if self._teaches(batch))

    def _teaches(self, batch: Batch) -> bool:
        """Pass over a batch of which one image is left: BatchNorm cannot learn of it."""
        return len(batch) > 1 or batch.num_left_out == 0

    def validation(self) -> Iterator[Examples]:
        """Yield the batches of the validation split."""
        return split_batches(self.context, self.plan, self.validation_split, self.device)


@dataclass(frozen=True)
class FeatureLessons:
    """The trunk runs once over every image of every pass of the feed; epochs then cost next to nothing.

    Epoch e learns from pass e modulo the number of passes, shuffled by (seed, e).
    """

    module: torch.nn.Module
    plan: Plan
    passes: tuple[Examples, ...]
    measured: Examples

    @classmethod
    def collect(
        cls,
        model: torch.nn.Module,
        plan: Plan,
        validation_split: str,
        feed: Feed,
        context: Context,
        device: torch.device,
    ) -> FeatureLessons:
        """Run the trunk over the feed and over the validation split.

        Features are kept on the device: 4 bytes times their width (1280 for EfficientNet-Lite0) an image.

        Raises:
            ModelError: the scores are not simply the head of some features.
        """
        batches = context.console.track(feed, "features")
        model.eval()
        passes = tuple(
            features_of(
                model,
                (examples_of(batch.without_padding(), device) for batch in group if batch.num_images),
            )
            for _, group in groupby(batches, key=lambda batch: batch.epoch)
        )
        measured = features_of(model, split_batches(context, plan, validation_split, device))
        return cls(head_module(model)[1], plan, passes, measured)

    def epochs(self, epochs: range) -> Iterator[tuple[int, Iterator[Examples]]]:
        """Yield shuffled features, epoch by epoch."""
        for epoch in epochs:
            whole = self.passes[epoch % len(self.passes)]
            order = keyed_generator(keyed_bits("features", self.plan.seed, epoch, "")).permutation(len(whole))
            yield epoch, chunks(whole, torch.from_numpy(order), self.plan.batch.size)

    def validation(self) -> Iterator[Examples]:
        """Yield the validation features as one batch."""
        yield self.measured


def chunks(whole: Examples, order: torch.Tensor, size: int) -> Iterator[Examples]:
    """Cut examples into batches in a given order."""
    order = order.to(whole.labels.device)
    for start in range(0, len(order), size):
        yield each_tensor([whole], partial(pick, rows=order[start : start + size]))


def pick(tensors: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Take rows of the only tensor."""
    return tensors[0][rows]


def each_tensor(parts: list[Examples], make: Callable[[list[torch.Tensor]], torch.Tensor]) -> Examples:
    """Make examples without padding whose every tensor is made from the parts' tensors of the same name."""
    partner_labels = [part.partner_labels for part in parts if part.partner_labels is not None]
    partner_weights = [part.partner_weights for part in parts if part.partner_weights is not None]
    return Examples(
        make([part.inputs for part in parts]),
        make([part.labels for part in parts]),
        make([part.replaced for part in parts]),
        make(partner_labels) if partner_labels else None,
        make(partner_weights) if partner_weights else None,
    )


def features_of(model: torch.nn.Module, batches: Iterator[Examples]) -> Examples:
    """Return what reaches the head for each example; the model is in eval mode and stays as it was."""
    _, head = head_module(model)
    parts: list[Examples] = []
    for examples in batches:
        with torch.no_grad(), watching(head) as caught:
            scores = scores_of(model, examples.inputs)
        if not parts:
            check_head(head, caught[0], scores)
        parts.append(replace(examples, inputs=caught[0]))
    return each_tensor(parts, torch.cat)


@contextmanager
def watching(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what a module is given while the context lasts."""
    caught: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, arguments: caught.append(arguments[0]))
    try:
        yield caught
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
        raise ModelError("feature_passes: wanted a model that ends in its head, got one that goes on; "
                         "leave feature_passes out: the whole model then runs every epoch")  # fmt: skip
