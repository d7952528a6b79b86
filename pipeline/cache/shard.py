"""One shard: an Arrow IPC file with one record batch of pictures, read from a memory map without copying.

What is checked when: opening a shard checks the framing and every column but the pixels (a checksum of those columns
lies in the schema's metadata), which costs about 50 bytes a picture; the pixels of a picture are checked when the
process first uses it, by a checksum over its key, its size and its bytes.

Checksums find damage; anybody can work them out for a shard of their own making. So everything that memory is reached
by is compared with the file and with each other as well: buffers lie inside the file, offsets inside their buffer,
height x width x 3 is the length of raw pixels, and the header of a JPEG has the stated size.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from ..formats.integrity import integrity_problem
from .codec import CHANNELS, CachedImage
from .key import KEY_BYTES
from .permissions import open_regular_file
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

TABLE_CHECKSUM = b"lightwell.table"
VERSION = b"lightwell.shard"
_MAGIC_BYTES = 8
_HEADER = 2
"""Number of a message's field in Arrow's Message.fbs."""
_COMPRESSION = 3
"""Number of a record batch's field there."""


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
    raw: bool | None = None
    """Whether pictures are raw pixels or JPEGs; None where it is not known and either will do."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> CachedImage:
        """Return a picture without copying it.

        Raises:
            DamagedShard: its bytes are not those that were written.
        """
        data = self.pixels[self.offsets[number] : self.offsets[number + 1]]
        height, width = self.sizes[number].tolist()
        if not self.checked[number]:
            if checksum(self.keys[number], (height, width), data) != self.checksums[number]:
                raise DamagedShard(f"{self.path.name}: picture {number} is not what was written")
            if not self._is_raw(data, (height, width)):
                problem = integrity_problem(data.tobytes(), "jpeg", "RGB", (height, width))
                if problem:
                    raise DamagedShard(
                        f"{self.path.name}: picture {number} is not what its row says ({problem})"
                    )
            self.checked[number] = True
        return CachedImage(data, (height, width), self)

    def _is_raw(self, data: np.ndarray, size: tuple[int, int]) -> bool:
        return size[0] * size[1] * CHANNELS == len(data) if self.raw is None else self.raw


def checksum(key: np.ndarray, size: tuple[int, int], data: np.ndarray) -> int:
    """Work out the checksum of one picture."""
    head = key.tobytes() + np.array(size, "<i4").tobytes()
    return zlib.crc32(data.data, zlib.crc32(head))


def _table_checksum(*columns: np.ndarray) -> bytes:
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
        TABLE_CHECKSUM: _table_checksum(keys, heights, widths, checks, offsets),
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


def open_shard(
    path: Path, *, raw: bool | None = None, shared: bool = False, written_here: bool = False
) -> Shard:
    """Map a shard.

    Args:
        path: of the file; not followed where it is a link.
        raw: whether its pictures have to be raw pixels or JPEGs; None takes either.
        shared: open it as well where it belongs to another user or where others may write it.
        written_here: take its pictures as checked.

    Raises:
        DamagedShard: it is torn or damaged.
        ForeignFileError: it is a link, no regular file or not of this user; an OSError.
        OSError: it is gone or cannot be mapped, which says nothing of what it holds.
    """
    with open_regular_file(path, shared=shared) as descriptor:
        if not os.fstat(descriptor).st_size:
            raise DamagedShard(f"{path.name}: empty")
        # By its descriptor, so that it is the file that was looked at. The map outlives the descriptor.
        with pa.memory_map(f"/proc/self/fd/{descriptor}") as source:
            file_buffer = source.read_buffer()
    try:
        schema, batch = _read_table(file_buffer)
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise DamagedShard(f"{path.name}: torn or damaged ({reason})") from error
    shard = _to_shard(path, file_buffer, batch, raw=raw, written_here=written_here)
    columns = (shard.keys, shard.sizes[:, 0], shard.sizes[:, 1], shard.checksums, shard.offsets)
    metadata = schema.metadata or {}
    if metadata.get(TABLE_CHECKSUM) != _table_checksum(*columns):
        raise DamagedShard(f"{path.name}: its table is not what was written")
    if metadata.get(VERSION) != str(SHARD_VERSION).encode():
        raise DamagedShard(f"{path.name}: expected version {SHARD_VERSION} of shards, got another")
    _check_lengths(shard)
    return shard


def _read_table(file_buffer: pa.Buffer) -> tuple[pa.Schema, pa.RecordBatch]:
    """Read the only record batch of a file, without copying it.

    The footer is compared and then left alone: it could lead to other messages. A compressed batch is refused before
    it is unpacked, to whatever size it says.
    """
    reader = pa.ipc.open_file(pa.BufferReader(file_buffer))
    if reader.num_record_batches != 1 or not reader.schema.equals(SCHEMA):
        raise pa.ArrowInvalid("expected one record batch of pictures, got another table")
    messages = pa.ipc.MessageReader.open_stream(pa.BufferReader(file_buffer.slice(_MAGIC_BYTES)))
    schema = pa.ipc.read_schema(messages.read_next_message())
    message = messages.read_next_message()
    if not schema.equals(SCHEMA) or message.type != "record batch" or _is_compressed(message):
        raise pa.ArrowInvalid("expected one plain record batch of pictures, got another table")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return schema, batch


def _is_compressed(message: pa.Message) -> bool:
    """Look for the codec of a record batch in its header, a flatbuffer that Arrow has verified."""
    data = message.metadata.to_pybytes()

    def field_of(table: int, number: int) -> int:
        fields = table - struct.unpack_from("<i", data, table)[0]
        within = 4 + 2 * number
        if within >= struct.unpack_from("<H", data, fields)[0]:
            return 0
        return int(struct.unpack_from("<H", data, fields + within)[0])

    root = struct.unpack_from("<I", data)[0]
    header = root + field_of(root, _HEADER)
    return field_of(header + struct.unpack_from("<I", data, header)[0], _COMPRESSION) != 0


def _to_shard(
    path: Path, file_buffer: pa.Buffer, batch: pa.RecordBatch, *, raw: bool | None, written_here: bool
) -> Shard:
    if any(column.null_count or column.offset for column in batch.columns) or not len(batch):
        raise DamagedShard(f"{path.name}: its table is not what was written")
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer is not None]
    if not all(_is_within(buffer, file_buffer) for buffer in buffers):
        raise DamagedShard(f"{path.name}: its table does not lie in the file")
    keys = np.frombuffer(batch.column("key").buffers()[1], "<u8", 2 * len(batch)).reshape(-1, 2)
    _, offsets, pixels = batch.column("pixels").buffers()
    sizes = np.stack([_values(batch, "height"), _values(batch, "width")], axis=1)
    return Shard(
        path,
        file_buffer.size,
        keys,
        sizes,
        _values(batch, "checksum"),
        np.frombuffer(offsets, "<i8", len(batch) + 1),
        np.frombuffer(pixels, np.uint8) if pixels is not None else np.empty(0, np.uint8),
        np.full(len(batch), written_here),
        raw,
    )


def _is_within(buffer: pa.Buffer, file_buffer: pa.Buffer) -> bool:
    return bool(
        file_buffer.address <= buffer.address
        and buffer.address + buffer.size <= file_buffer.address + file_buffer.size
    )


def _check_lengths(shard: Shard) -> None:
    """Compare offsets, heights and widths with what there is, and with each other."""
    name, lengths = shard.path.name, np.diff(shard.offsets)
    if shard.offsets[0] < 0 or shard.offsets[-1] > len(shard.pixels) or (lengths <= 0).any():
        raise DamagedShard(f"{name}: pictures do not lie in its pixels")
    if (shard.sizes <= 0).any():
        raise DamagedShard(f"{name}: expected heights and widths of at least 1, got others")
    areas = shard.sizes[:, 0].astype(np.int64) * shard.sizes[:, 1]
    if shard.raw and ((areas != lengths // CHANNELS) | (lengths % CHANNELS != 0)).any():
        raise DamagedShard(f"{name}: expected height x width x {CHANNELS} bytes for each picture, got others")


def _values(batch: pa.RecordBatch, name: str) -> Any:
    return batch.column(name).to_numpy()
