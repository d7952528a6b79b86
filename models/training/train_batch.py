"""What a step learns from or measures, and how the slices of ranks are put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from ...pipeline.batch.batch import Batch
from .distributed.context import DistributedContext


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """What one step learns from."""

    inputs: torch.Tensor
    """float32: images (N, 3, H, W), or features as the head takes them."""
    labels: torch.Tensor
    """int64, shape (N,); -1 where there is none."""
    replaced: torch.Tensor
    """bool, shape (N,): these train, but are not measured."""
    mixed_labels: torch.Tensor | None = None
    mixed_weights: torch.Tensor | None = None
    padding: torch.Tensor | None = None
    """bool, shape (N,): rows that teach nothing, since their labels are -1, and are counted nowhere."""
    step: int = 0
    """Number of the batch within its epoch."""

    @property
    def num_images(self) -> int:
        """Examples without padding."""
        return len(self) if self.padding is None else len(self) - int(self.padding.sum())

    def __len__(self) -> int:
        return len(self.labels)

    def cpu(self) -> TrainBatch:
        """Move all of it to the CPU."""
        return map_tensors([self], lambda tensors: tensors[0].cpu())


def to_train_batch(batch: Batch, device: torch.device) -> TrainBatch:
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
    return TrainBatch(
        images.contiguous(memory_format=torch.channels_last),
        labels_of(batch.labels),
        torch.from_numpy(np.asarray(batch.replaced)).to(device),
        None if batch.mixed_labels is None else labels_of(batch.mixed_labels),
        None if batch.mixed_weights is None else batch.mixed_weights.to(device, non_blocking=True),
        padding,
        batch.step,
    )


def map_tensors(
    parts: Sequence[TrainBatch], make: Callable[[list[torch.Tensor]], torch.Tensor]
) -> TrainBatch:
    """Make examples whose every tensor is made from the parts' tensors of the same name."""
    mixed_labels = [part.mixed_labels for part in parts if part.mixed_labels is not None]
    mixed_weights = [part.mixed_weights for part in parts if part.mixed_weights is not None]
    mark_padding = any(part.padding is not None for part in parts)
    return TrainBatch(
        make([part.inputs for part in parts]),
        make([part.labels for part in parts]),
        make([part.replaced for part in parts]),
        make(mixed_labels) if mixed_labels else None,
        make(mixed_weights) if mixed_weights else None,
        make([padding_mask(part) for part in parts]) if mark_padding else None,
        parts[0].step,
    )


def padding_mask(examples: TrainBatch) -> torch.Tensor:
    """Say which rows are padding."""
    return torch.zeros_like(examples.replaced) if examples.padding is None else examples.padding


def take_rows(whole: TrainBatch, rows: torch.Tensor) -> TrainBatch:
    """Take some rows."""
    rows = rows.to(whole.labels.device)
    return map_tensors([whole], partial(pick, rows=rows))


def pick(tensors: list[torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    """Take rows of the only tensor."""
    return tensors[0][rows]


def gather_slices(slices: Sequence[TrainBatch], dist: DistributedContext) -> TrainBatch:
    """Put the slices of all ranks together: batch by batch, in order, without padding; all ranks get all of it.

    Args:
        slices: this rank's; the other ranks have as many, of the same lengths.
        dist: ranks to gather from.
    """
    own = map_tensors(slices, torch.cat)
    if dist.num_ranks == 1 and own.padding is None:
        return own
    turns = [torch.full((len(part),), number, dtype=torch.int64) for number, part in enumerate(slices)]
    own = replace(own, padding=padding_mask(own).to(torch.uint8), replaced=own.replaced.to(torch.uint8))
    whole = map_tensors([own], lambda tensors: dist.all_gather(tensors[0]))
    order = dist.all_gather(torch.cat(turns)).argsort(stable=True)
    order = order[padding_mask(whole)[order.to(whole.labels.device)].cpu() == 0]
    taken = take_rows(replace(whole, padding=None), order)
    return replace(taken, replaced=taken.replaced.bool())


def local_batches(
    whole: TrainBatch, order: np.ndarray, size: int, dist: DistributedContext
) -> Iterator[TrainBatch]:
    """Cut examples that every rank has into batches, in a given order, and yield this rank's slice of each.

    Slices are of equal lengths; what is repeated for that is padding and has no label.
    """
    for step, start in enumerate(range(0, len(order), size)):
        rows = order[start : start + size]
        num_here = -(-len(rows) // dist.num_ranks)
        slots = np.arange(dist.rank * num_here, (dist.rank + 1) * num_here)
        part = replace(take_rows(whole, torch.from_numpy(rows[slots % len(rows)])), step=step)
        yield part if dist.num_ranks == 1 else mark_padding(part, torch.from_numpy(slots >= len(rows)))


def mark_padding(examples: TrainBatch, padding: torch.Tensor) -> TrainBatch:
    """Mark rows as padding and take their labels away."""
    padding = padding.to(examples.labels.device)
    mixed_labels = examples.mixed_labels
    return replace(
        examples,
        labels=examples.labels.masked_fill(padding, -1),
        mixed_labels=None if mixed_labels is None else mixed_labels.masked_fill(padding, -1),
        padding=padding,
    )
