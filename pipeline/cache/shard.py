"""Cache shard: an Arrow IPC file with one record batch of images, memory-mapped without copying.

Opening a shard verifies its framing and every column except the pixels, with a checksum in the schema's metadata, which
reads about 50 bytes per image. The pixels of an image are verified when the process first uses it, with a checksum over
key, size and bytes.

Checksums detect damage but can be forged. So all values used to access memory are validated as well: buffers lie inside
the file, offsets inside their buffer, height x width x 3 is the length of raw pixels, and the header of a JPEG has the
stated size.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from ..formats.integrity import integrity_problem
from .codec import CHANNELS, CachedImage
from .key import KEY_BYTES
from .permissions import open_regular_file
from .recipe import SHARD_VERSION, Form

SCHEMA = pa.schema(
    [
        ("key", pa.binary(KEY_BYTES)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("checksum", pa.uint32()),
        ("pixels", pa.large_binary()),
    ]
)
"""``checksum`` is CRC-32 of key, height, width and pixels. Pixels come last, so that the other columns are contiguous."""

TABLE_CHECKSUM = b"lightwell.table"
VERSION = b"lightwell.shard"
_MAGIC_BYTES = 8
_HEADER = 2
"""Field number of the header in Arrow's Message.fbs."""
_COMPRESSION = 3
"""Field number of the compression in a record batch."""


class DamagedShard(ValueError):
    """A shard is damaged; the message has the reason."""


@dataclass(frozen=True, eq=False)
class Shard:
    """An open shard. Its memory stays mapped while any of its images is referenced, even if the file is deleted."""

    path: Path
    num_bytes: int
    keys: np.ndarray
    """uint64 little-endian, shape (n, 2)."""
    sizes: np.ndarray
    """int32, shape (n, 2): height and width."""
    checksums: np.ndarray
    offsets: np.ndarray
    """int64, shape (n + 1,): start and end of each image in ``pixels``."""
    pixels: np.ndarray
    """uint8, one dimension, read-only."""
    checked: np.ndarray = field(repr=False)
    """bool, shape (n,): images that this process has verified or written itself."""
    form: Form | None = None
    """What its entries are; None accepts raw pixels and JPEGs."""

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> CachedImage:
        """Return an image without copying it.

        Raises:
            DamagedShard: its checksum or header does not match.
        """
        data = self.pixels[self.offsets[number] : self.offsets[number + 1]]
        height, width = self.sizes[number].tolist()
        if not self.checked[number]:
            if checksum(self.keys[number], (height, width), data) != self.checksums[number]:
                raise DamagedShard(f"{self.path.name}: picture {number} is not what was written")
            if self._is_jpeg(data, (height, width)):
                problem = integrity_problem(data.tobytes(), "jpeg", "RGB", (height, width))
                if problem:
                    raise DamagedShard(
                        f"{self.path.name}: picture {number} is not what its row says ({problem})"
                    )
            self.checked[number] = True
        return CachedImage(data, (height, width), self)

    def intact(self) -> Iterator[tuple[np.ndarray, CachedImage]]:
        """Yield the key, uint64 of shape (2,), and the image of each row whose checksum and header match."""
        for number, key in enumerate(self.keys):
            with suppress(DamagedShard):
                yield key, self.read(number)

    def _is_jpeg(self, data: np.ndarray, size: tuple[int, int]) -> bool:
        return size[0] * size[1] * CHANNELS != len(data) if self.form is None else self.form == "jpeg"


def checksum(key: np.ndarray, size: tuple[int, int], data: np.ndarray) -> int:
    """Compute the checksum of one image."""
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
    """Write a shard; ``pixels`` holds the concatenated images, ``offsets`` their boundaries.

    Raises:
        OSError: the file cannot be written.
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
    path: Path, *, form: Form | None = None, shared: bool = False, written_here: bool = False
) -> Shard:
    """Open and memory-map a shard.

    Args:
        path: of the file; links are not followed.
        form: what its entries have to be; None accepts raw pixels and JPEGs.
        shared: also open it if it belongs to another user or is writable by others.
        written_here: treat its images as verified.

    Raises:
        DamagedShard: it is truncated or damaged.
        ForeignFileError: it is a link, not a regular file or not this user's; an OSError.
        OSError: it does not exist or cannot be mapped; its content may be intact.
    """
    with open_regular_file(path, shared=shared) as descriptor:
        if not os.fstat(descriptor).st_size:
            raise DamagedShard(f"{path.name}: empty")
        # By descriptor, so that the checked file is mapped. The map outlives the descriptor.
        with pa.memory_map(f"/proc/self/fd/{descriptor}") as source:
            file_buffer = source.read_buffer()
    try:
        schema, batch = _read_table(file_buffer)
    except (OSError, pa.ArrowException, MemoryError, UnicodeDecodeError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise DamagedShard(f"{path.name}: torn or damaged ({reason})") from error
    shard = _to_shard(path, file_buffer, batch, form=form, written_here=written_here)
    columns = (shard.keys, shard.sizes[:, 0], shard.sizes[:, 1], shard.checksums, shard.offsets)
    metadata = schema.metadata or {}
    if metadata.get(TABLE_CHECKSUM) != _table_checksum(*columns):
        raise DamagedShard(f"{path.name}: its table is not what was written")
    if metadata.get(VERSION) != str(SHARD_VERSION).encode():
        raise DamagedShard(f"{path.name}: expected version {SHARD_VERSION} of shards, got another")
    _check_lengths(shard)
    return shard


def _read_table(file_buffer: pa.Buffer) -> tuple[pa.Schema, pa.RecordBatch]:
    """Read the only record batch of a file without copying it.

    The footer is validated but not used, as it could point to other messages. A compressed batch is rejected before it
    is decompressed to whatever size it claims.
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
    """Return whether the header of a record batch, a flatbuffer that Arrow has verified, names a codec."""
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
    path: Path, file_buffer: pa.Buffer, batch: pa.RecordBatch, *, form: Form | None, written_here: bool
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
        form,
    )


def _is_within(buffer: pa.Buffer, file_buffer: pa.Buffer) -> bool:
    return bool(
        file_buffer.address <= buffer.address
        and buffer.address + buffer.size <= file_buffer.address + file_buffer.size
    )


def _check_lengths(shard: Shard) -> None:
    """Validate offsets, heights and widths against the buffers and each other."""
    name, lengths = shard.path.name, np.diff(shard.offsets)
    if shard.offsets[0] < 0 or shard.offsets[-1] > len(shard.pixels) or (lengths <= 0).any():
        raise DamagedShard(f"{name}: pictures do not lie in its pixels")
    if (shard.sizes <= 0).any():
        raise DamagedShard(f"{name}: expected heights and widths of at least 1, got others")
    areas = shard.sizes[:, 0].astype(np.int64) * shard.sizes[:, 1]
    if shard.form == "raw" and ((areas != lengths // CHANNELS) | (lengths % CHANNELS != 0)).any():
        raise DamagedShard(f"{name}: expected height x width x {CHANNELS} bytes for each picture, got others")


def _values(batch: pa.RecordBatch, name: str) -> Any:
    return batch.column(name).to_numpy()
