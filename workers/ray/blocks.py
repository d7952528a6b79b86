"""Prepares a finished batch for transfer between processes.

Ray writes the arrays of a block to the object store once, without conversion; whoever receives it sees them there. Objects in
the store are shared and read-only, whereas a batch belongs to its consumer. So it is copied into pooled memory, and the store
can free the object at once, however long the batch is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...pipeline import errors
from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.runtime.batch_builder import BatchResult

if TYPE_CHECKING:
    import torch

TENSORS = ("labels", "masks", "mixed_labels", "mixed_weights", "label_sets", "mixed_label_sets")
FLAGS = ("replaced", "padding", "has_mask", "has_boxes", "has_keypoints")
RAGGED = ("boxes", "box_labels", "keypoints")
"""Fields with one array per image; they are concatenated, with their lengths in ``facts``."""
CHANNELS_LAST = "channels_last"


@dataclass(frozen=True, slots=True)
class Block:
    """A finished batch as it is transferred."""

    result: BatchResult
    """Without batch and error."""
    error: tuple[str, list[str]] | None
    """Class name and arguments of the error, as the receiver may not have a plug-in's class."""
    worker_stats: Mapping[str, Any]
    facts: Mapping[str, Any] | None
    """Small values of the batch, and the layout of its arrays; None without a batch."""
    arrays: Mapping[str, np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


def to_block(result: BatchResult, worker_stats: Mapping[str, Any] | None = None) -> Block:
    """Convert a batch to a block, without copying its pixels.

    Args:
        result: the batch; pixels on a GPU are copied to the host.
        worker_stats: statistics for the driver, as JSON values.
    """
    facts, arrays = (None, {}) if result.batch is None else _dump_batch(result.batch)
    error = None if result.error is None else _dump_error(result.error)
    return Block(replace(result, batch=None, error=None), error, worker_stats or {}, facts, arrays)


def from_block(block: Block, pool: BufferPool | None = None) -> tuple[BatchResult, Mapping[str, Any]]:
    """Convert a block to a batch and the worker's statistics; both are copies.

    Args:
        block: the result of ``to_block``.
        pool: provides the memory of the images.
    """
    batch = None if block.facts is None else _load_batch(block.facts, block.arrays, pool or BufferPool())
    error = None if block.error is None else _load_error(*block.error)
    return replace(block.result, batch=batch, error=error), block.worker_stats


def _dump_batch(batch: Batch) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    images, layout = _host_array(batch.images)
    facts = {
        "keys": batch.keys,
        "epoch": batch.epoch,
        "step": batch.step,
        "num_skipped": batch.num_skipped,
        "layout": layout,
    }
    arrays = {"images": images}
    for name in TENSORS:
        tensor: torch.Tensor | None = getattr(batch, name)
        if tensor is not None:
            arrays[name] = tensor.cpu().numpy()
    for name in FLAGS:
        if getattr(batch, name) is not None:
            arrays[name] = getattr(batch, name)
    lengths: dict[str, list[int]] = {}
    for name in RAGGED:
        some: Sequence[np.ndarray] | None = getattr(batch, name)
        if some is not None:
            lengths[name] = [len(one) for one in some]
            arrays[name] = np.concatenate(some)
    facts["lengths"] = lengths
    return facts, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _host_array(images: torch.Tensor) -> tuple[np.ndarray, str]:
    """Return the pixels in their memory layout, and the name of the layout."""
    on_host = images.cpu()
    last = on_host.permute(0, 2, 3, 1)
    if not on_host.is_contiguous() and last.is_contiguous():
        return last.numpy(), CHANNELS_LAST
    return on_host.contiguous().numpy(), ""


def _load_batch(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray], pool: BufferPool) -> Batch:
    import torch

    shown = arrays["images"]
    own = pool.take(shown.shape, shown.dtype.type)
    np.copyto(own, shown)
    images = torch.from_numpy(own)
    small = {name: array.copy() for name, array in arrays.items() if name != "images"}
    fields: dict[str, Any] = {name: torch.from_numpy(small[name]) for name in TENSORS if name in small}
    fields |= {name: small[name] for name in FLAGS if name in small}
    for name, lengths in facts["lengths"].items():
        fields[name] = tuple(np.split(small[name], np.cumsum(lengths)[:-1]))
    return Batch(
        images=images.permute(0, 3, 1, 2) if facts["layout"] == CHANNELS_LAST else images,
        keys=tuple(facts["keys"]),
        epoch=facts["epoch"],
        step=facts["step"],
        num_skipped=facts["num_skipped"],
        **fields,
    )


def _dump_error(error: errors.LightwellError) -> tuple[str, list[str]]:
    return type(error).__name__, [str(part) for part in error.args]


def _load_error(name: str, parts: list[str]) -> errors.LightwellError:
    found = getattr(errors, name, errors.RunError)  # a plug-in's own kind is known where it was raised only
    error = found(*parts)
    assert isinstance(error, errors.LightwellError)
    return error
