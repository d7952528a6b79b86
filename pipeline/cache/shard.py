"""One shard: an Arrow IPC file with one record batch of pictures, read from a memory map without copying.

What is checked when: opening a shard checks the framing and every column but the pixels (a checksum of those columns
lies in the schema's metadata), which costs about 50 bytes a picture; the pixels of a picture are checked when the
process first uses it, by a checksum over its key, its size and its bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from .identity import KEY_BYTES
from .packing import Packed
from .recipe import SHARD_VERSION

SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("checksum", pa.uint32()),
        ("pixels", pa.large_binary()),
    ]
)
"""``checksum`` is CRC-32 of key, height, width and pixels. Pixels come last: all else lies in one piece."""

TABLE_CHECK = b"lightwell.table"
VERSION = b"lightwell.shard"
SUFFIX = ".arrow"


class DamagedShard(ValueError):
    """A shard cannot be used; says why."""


@dataclass(frozen=True, eq=False)
class Shard:
    """An open shard. Its memory stays mapped as long as anybody holds a picture of it, also when it is deleted."""

    path: Path
    num_bytes: int
    keys: np.ndarray
    """uint64 little-endian, shape (n, 2)."""
    sizes: np.ndarray
    """int32, shape (n, 2): height and width."""
    checksums: np.ndarray
    offsets: np.ndarray
    """int64, shape (n + 1,): where pictures begin and end in ``pixels``."""
    pixels: np.ndarray
    """uint8, one dimension, read-only."""
    checked: np.ndarray = field(repr=False)
    """bool, shape (n,): pictures that this process has checked, or has written itself."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> Packed:
        """Return a picture without copying it.

        Raises:
            DamagedShard: its bytes are not those that were written.
        """
        data = self.pixels[self.offsets[number] : self.offsets[number + 1]]
        height, width = self.sizes[number].tolist()
        if not self.checked[number]:
            if checksum(self.keys[number], (height, width), data) != self.checksums[number]:
                raise DamagedShard(f"{self.path.name}: picture {number} is not what was written")
            self.checked[number] = True
        return Packed(data, (height, width))


def checksum(key: np.ndarray, size: tuple[int, int], data: np.ndarray) -> int:
    """Work out the checksum of one picture."""
    head = key.tobytes() + np.array(size, "<i4").tobytes()
    return zlib.crc32(data.data, zlib.crc32(head))


def _table_check(*columns: np.ndarray) -> bytes:
    check = 0
    for column in columns:
        check = zlib.crc32(np.ascontiguousarray(column).data, check)
    return b"%08x" % check


def write_shard(
    file: BinaryIO,
    keys: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    offsets: np.ndarray,
    pixels: np.ndarray,
) -> None:
    """Write a shard; ``pixels`` holds the pictures one after another, ``offsets`` where each begins and ends.

    Raises:
        OSError: the file cannot take it.
    """
    heights, widths = (np.array(side, "<i4") for side in zip(*sizes, strict=True))
    checks = np.array(
        [
            checksum(key, size, pixels[start:end])
            for key, size, start, end in zip(keys, sizes, offsets[:-1], offsets[1:], strict=True)
        ],
        "<u4",
    )
    offsets = offsets.astype("<i8")
    metadata = {
        TABLE_CHECK: _table_check(keys, heights, widths, checks, offsets),
        VERSION: str(SHARD_VERSION).encode(),
    }
    schema = SCHEMA.with_metadata(metadata)
    columns = [
        pa.Array.from_buffers(pa.binary(KEY_BYTES), len(keys), [None, pa.py_buffer(keys.tobytes())]),
        pa.array(heights),
        pa.array(widths),
        pa.array(checks),
        pa.Array.from_buffers(
            pa.large_binary(), len(keys), [None, pa.py_buffer(offsets), pa.py_buffer(pixels[: offsets[-1]])]
        ),
    ]
    with pa.ipc.new_file(file, schema) as out:
        out.write_batch(pa.record_batch(columns, schema=schema))


def open_shard(path: Path, *, written_here: bool = False) -> Shard:
    """Map a shard; ``written_here`` takes its pictures as checked.

    Raises:
        DamagedShard: it is torn or damaged.
        OSError: it is gone or cannot be mapped, which says nothing of what it holds.
    """
    if not path.stat().st_size:
        raise DamagedShard(f"{path.name}: empty")
    with pa.memory_map(str(path)) as source:  # the map outlives the open file, of which there may be few
        whole = source.read_buffer()
    try:
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        metadata = reader.schema.metadata or {}
        if reader.num_record_batches != 1 or not reader.schema.equals(SCHEMA):
            raise DamagedShard(f"{path.name}: wanted one record batch of pictures, got another table")
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DamagedShard(f"{path.name}: torn or damaged ({reason})") from error
    shard = _shard_of(path, whole, batch, written_here=written_here)
    columns = (shard.keys, shard.sizes[:, 0], shard.sizes[:, 1], shard.checksums, shard.offsets)
    if metadata.get(TABLE_CHECK) != _table_check(*columns):
        raise DamagedShard(f"{path.name}: its table is not what was written")
    return shard


def _shard_of(path: Path, whole: pa.Buffer, batch: pa.RecordBatch, *, written_here: bool) -> Shard:
    if any(column.null_count or column.offset for column in batch.columns) or not len(batch):
        raise DamagedShard(f"{path.name}: its table is not what was written")
    keys = np.frombuffer(batch.column("key").buffers()[1], "<u8", 2 * len(batch)).reshape(-1, 2)
    _, offsets, pixels = batch.column("pixels").buffers()
    sizes = np.stack([_values(batch, "height"), _values(batch, "width")], axis=1)
    return Shard(
        path,
        whole.size,
        keys,
        sizes,
        _values(batch, "checksum"),
        np.frombuffer(offsets, "<i8", len(batch) + 1),
        np.frombuffer(pixels, np.uint8) if pixels is not None else np.empty(0, np.uint8),
        np.full(len(batch), written_here),
    )


def _values(batch: pa.RecordBatch, name: str) -> Any:
    return batch.column(name).to_numpy()
