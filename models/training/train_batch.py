"""Batches of a training or evaluation step; gathering slices from ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ...pipeline.batch.batch import Batch
from ..zoo.forward import model_inputs
from .distributed.context import DistributedContext


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """Inputs, targets and flags of one step, on the model's device."""

    inputs: torch.Tensor
    """float32: images (N, 3, H, W), or input features of the head."""
    targets: torch.Tensor
    """Shape (N, ...), as the task defines them: -1, or NaN in floats, where there is none. Labels are int64, shape (N,)."""
    replaced: torch.Tensor
    """bool, shape (N,): rows that replace an unreadable image; used in training but not in metrics."""
    mixed_targets: torch.Tensor | None = None
    """Targets of the images that are mixed in."""
    mixed_weights: torch.Tensor | None = None
    padding: torch.Tensor | None = None
    """bool, shape (N,): padding rows; without a target and excluded from all counts."""
    step: int = 0
    """Index of the batch within its epoch."""
    keys: tuple[str, ...] = ()
    """Keys of the images in the index; empty for features."""

    @property
    def num_images(self) -> int:
        """Number of rows without padding."""
        return len(self) if self.padding is None else len(self) - int(self.padding.sum())

    def __len__(self) -> int:
        return len(self.targets)

    def cpu(self) -> TrainBatch:
        """Move all tensors to the CPU."""
        return map_tensors([self], lambda tensors: tensors[0].cpu())


@dataclass(frozen=True, slots=True)
class Targets:
    """Targets of a batch, one row per image."""

    own: torch.Tensor
    """-1, or NaN in floats, where there is none."""
    mixed: torch.Tensor | None = None
    """Those of the images that MixUp or CutMix mixed in, where the model is trained on both."""


def label_targets(batch: Batch) -> Targets:
    """Return the labels of a batch as targets."""
    return Targets(batch.labels, batch.mixed_labels)


def fill_ignored(targets: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Remove the targets of some rows, given as a mask: -1, or NaN in floats."""
    mask = rows.to(targets.device).view(-1, *(1,) * (targets.dim() - 1))
    return targets.masked_fill(mask, float("nan") if targets.is_floating_point() else -1)


def to_train_batch(
    batch: Batch, device: torch.device, targets: Callable[[Batch], Targets] = label_targets
) -> TrainBatch:
    """Move a batch to the model's device.

    uint8 NHWC images become float32 NCHW in 0..1: a plan without ``Normalize`` trains on ``x / 255``.
    Images use the channels-last memory format. Padding rows have no target.
    """

    def sent(values: torch.Tensor) -> torch.Tensor:
        return values.to(device, non_blocking=True)

    padding = sent(torch.from_numpy(batch.padding)) if batch.padding.any() else None

    def moved(values: torch.Tensor) -> torch.Tensor:
        values = sent(values)
        return values if padding is None else fill_ignored(values, padding)

    found = targets(batch)
    return TrainBatch(
        model_inputs(batch.images, device),
        moved(found.own),
        sent(torch.from_numpy(np.asarray(batch.replaced))),
        None if found.mixed is None else moved(found.mixed),
        None if batch.mixed_weights is None else sent(batch.mixed_weights),
        padding,
        batch.step,
        batch.keys,
    )


def map_tensors(
    parts: Sequence[TrainBatch], make: Callable[[list[torch.Tensor]], torch.Tensor]
) -> TrainBatch:
    """Build a batch by applying a function to the batches' tensors of each field."""
    mixed_targets = [part.mixed_targets for part in parts if part.mixed_targets is not None]
    mixed_weights = [part.mixed_weights for part in parts if part.mixed_weights is not None]
    mark_padding = any(part.padding is not None for part in parts)
    return TrainBatch(
        make([part.inputs for part in parts]),
        make([part.targets for part in parts]),
        make([part.replaced for part in parts]),
        make(mixed_targets) if mixed_targets else None,
        make(mixed_weights) if mixed_weights else None,
        make([padding_mask(part) for part in parts]) if mark_padding else None,
        parts[0].step,
    )


def padding_mask(batch: TrainBatch) -> torch.Tensor:
    """Return the padding mask of a batch; all False if it has none."""
    return torch.zeros_like(batch.replaced) if batch.padding is None else batch.padding


def take_rows(batch: TrainBatch, rows: torch.Tensor) -> TrainBatch:
    """Select rows of a batch."""
    rows = rows.to(batch.targets.device)
    return map_tensors([batch], partial(index_rows, rows=rows))


def index_rows(tensors: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Select rows of the only tensor in a list."""
    return tensors[0][rows]


def gather_slices(slices: Sequence[TrainBatch], dist: DistributedContext) -> TrainBatch:
    """Gather the slices of all ranks on every rank: batch by batch, in order, without padding.

    Args:
        slices: slices of this rank; all ranks have equally many, of equal lengths.
        dist: ranks to gather from.
    """
    local = map_tensors(slices, torch.cat)
    if dist.num_ranks == 1 and local.padding is None:
        return local
    batch_numbers = [
        torch.full((len(part),), number, dtype=torch.int64) for number, part in enumerate(slices)
    ]
    local = replace(
        local, padding=padding_mask(local).to(torch.uint8), replaced=local.replaced.to(torch.uint8)
    )
    full = map_tensors([local], lambda tensors: dist.all_gather(tensors[0]))
    order = dist.all_gather(torch.cat(batch_numbers)).argsort(stable=True)
    order = order[padding_mask(full)[order.to(full.targets.device)].cpu() == 0]
    gathered = take_rows(replace(full, padding=None), order)
    return replace(gathered, replaced=gathered.replaced.bool())
