"""Out of memory: measures which batch size fits, for the error message."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ....pipeline.errors import PlanError, RunError
from ..train_batch import TrainBatch, take_rows


@contextmanager
def explain_out_of_memory(
    batch: TrainBatch, run: Callable[[TrainBatch], object], *, accumulate: int, is_alone: bool
) -> Iterator[None]:
    """Measure by halving which part of a batch fits, if the context runs out of memory.

    Args:
        batch: the batch that the context runs.
        run: runs part of a batch forward and backward; weights may change only in what is not kept after an error.
        accumulate: batches per update.
        is_alone: False with several ranks, which would wait for each other; nothing is measured then.

    Raises:
        RunError: the context ran out of memory; with the values of ``batch.size`` and ``accumulate`` that fit.
    """
    try:
        yield
    except RuntimeError as error:  # of which torch.OutOfMemoryError is one
        if not _is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # their tensors would stay in memory
        size = largest_fitting(batch, run) if is_alone else None
        if size is None:
            cure = "lower batch.size and raise accumulate as much"
        elif size == 0:
            cure = "not even one image fits: use smaller images or a smaller model"
        else:
            cure = f"{size} fit: write batch: {{size: {size}}} and accumulate: {accumulate * -(-len(batch) // size)}"
        raise RunError(
            f"training: expected a batch that fits in the memory of {batch.inputs.device}, got {len(batch)} images; {cure}"
        ) from error


def largest_fitting(batch: TrainBatch, run: Callable[[TrainBatch], object]) -> int:
    """Halve a batch until it fits in memory; returns the number of images, 0 if not even one fits."""
    size = len(batch) // 2
    while size:
        try:
            run(take_rows(batch, torch.arange(size)))
        except PlanError:  # BatchNorm cannot train on one image
            return 0
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
            size //= 2
        else:
            return size
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
