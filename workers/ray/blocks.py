"""Serializes a finished batch as an Arrow table of one row, for transfer between processes.

A table is one block of Ray Data, and its only row one batch, so that no batch is split. Pixels are one buffer, written to
the object store once, without conversion. Objects in the store are shared and read-only, whereas a batch belongs to its
consumer. So it is copied into pooled memory, and the store can free the object at once, however long the batch is kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...pipeline import errors
from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.monitor.quarantine import QuarantineEntry
from ...pipeline.runtime.batch_builder import BatchResult

if TYPE_CHECKING:
    import torch

TENSORS = ("labels", "masks", "mixed_labels", "mixed_weights")
FLAGS = ("replaced", "padding", "has_mask", "has_boxes", "has_keypoints")
RAGGED = ("boxes", "box_labels", "keypoints")
"""Fields with one array per image; they are concatenated, with their lengths in ``facts``."""
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("facts", pa.large_binary()),
        *((name, pa.large_binary()) for name in ("images", *TENSORS, *FLAGS, *RAGGED)),
    ]
)
"""``facts`` is JSON: small values, and dtype, shape and layout of the arrays."""
COUNTS = ("num_made", "num_failed", "num_read", "num_used", "num_skipped")
CHANNELS_LAST = "channels_last"


def to_block(result: BatchResult, worker_stats: Mapping[str, Any] | None = None) -> pa.Table:
    """Convert a batch to a table of one row, without copying its pixels.

    Args:
        result: the batch; pixels on a GPU are copied to the host.
        worker_stats: statistics for the driver, as JSON values.
    """
    facts: dict[str, Any] = {
        **{name: getattr(result, name) for name in COUNTS},
        "entries": [asdict(entry) for entry in result.entries],
        "error": None if result.error is None else _dump_error(result.error),
        "told": dict(worker_stats or {}),
    }
    arrays: dict[str, np.ndarray] = {}
    if result.batch is not None:
        facts["batch"], arrays = _dump_batch(result.batch)
    facts["arrays"] = {name: [str(array.dtype), array.shape] for name, array in arrays.items()}
    columns = [pa.array([result.number], pa.int64()), _single_cell(json.dumps(facts).encode())]
    columns += [_single_cell(arrays.get(name)) for name in SCHEMA.names[len(columns) :]]
    return pa.table(columns, schema=SCHEMA)


def from_block(table: pa.Table, pool: BufferPool | None = None) -> tuple[BatchResult, Mapping[str, Any]]:
    """Convert a table to a batch and the worker's statistics; both are copies.

    Args:
        table: the result of ``to_block``.
        pool: provides the memory of the images.
    """
    assert table.num_rows == 1, table.num_rows
    facts = json.loads(bytes(_buffer(table, "facts")))
    arrays = {
        name: _array(table, name, kind, tuple(shape)) for name, (kind, shape) in facts["arrays"].items()
    }
    result = BatchResult(
        number=table["number"][0].as_py(),
        batch=_load_batch(facts["batch"], arrays, pool or BufferPool()) if "batch" in facts else None,
        **{name: facts[name] for name in COUNTS},
        entries=tuple(QuarantineEntry(**entry) for entry in facts["entries"]),
        error=None if facts["error"] is None else _load_error(*facts["error"]),
    )
    return result, facts["told"]


def read_counts(table: pa.Table) -> Mapping[str, int]:
    """Read the counts of a batch, without its pixels."""
    facts = json.loads(bytes(_buffer(table, "facts")))
    return {name: facts[name] for name in COUNTS}


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


def _single_cell(content: np.ndarray | bytes | None) -> pa.Array:
    """Create a column with one cell, without copying its content."""
    if content is None:
        return pa.nulls(1, pa.large_binary())
    data = pa.py_buffer(content if isinstance(content, bytes) else content.reshape(-1).view(np.uint8))
    offsets = pa.py_buffer(np.array([0, data.size], np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _buffer(table: pa.Table, name: str) -> memoryview:
    (chunk,) = (chunk for chunk in table[name].chunks if len(chunk))
    first, end = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + 2]
    return memoryview(chunk.buffers()[2])[first:end]


def _array(table: pa.Table, name: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(_buffer(table, name), np.dtype(kind)).reshape(shape)


def _dump_error(error: errors.LightwellError) -> tuple[str, list[str]]:
    return type(error).__name__, [str(part) for part in error.args]


def _load_error(name: str, parts: list[str]) -> errors.LightwellError:
    found = getattr(errors, name, errors.RunError)  # a plug-in's own kind is known where it was raised only
    error = found(*parts)
    assert isinstance(error, errors.LightwellError)
    return error
