"""Forged cache shards: arbitrary content with valid checksums."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from lightwell.pipeline.cache.codec import encode_image
from lightwell.pipeline.cache.permissions import FILE_MODE
from lightwell.pipeline.cache.shard import SCHEMA, TABLE_CHECKSUM, VERSION, checksum, open_shard


@dataclass(frozen=True)
class Forged:
    """The columns of a shard, which tests modify; checksums are recomputed on writing."""

    keys: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    offsets: np.ndarray
    pixels: np.ndarray
    compression: str | None = None

    @classmethod
    def of(cls, path: Path) -> Forged:
        shard = open_shard(path)
        heights, widths = shard.sizes.T
        columns = (shard.keys, heights, widths, shard.offsets, shard.pixels[: shard.offsets[-1]])
        return cls(*(column.copy() for column in columns))

    def write(self, path: Path) -> None:
        """Write the shard in the cache's format, with valid checksums for any content."""
        sizes = zip(self.heights.tolist(), self.widths.tolist(), strict=True)
        ends = self.offsets.clip(0, len(self.pixels))
        checks = np.array(
            [
                checksum(key, size, self.pixels[start:end])
                for key, size, start, end in zip(self.keys, sizes, ends[:-1], ends[1:], strict=True)
            ],
            "<u4",
        )
        table_check = 0
        for column in (self.keys, self.heights, self.widths, checks, self.offsets):
            table_check = zlib.crc32(np.ascontiguousarray(column).data, table_check)
        schema = SCHEMA.with_metadata({TABLE_CHECKSUM: b"%08x" % table_check, VERSION: b"1"})
        n = len(self.keys)
        # Arrow writes no wrong offsets; they take the place of right ones in the file.
        right = self.offsets if self.compression else np.array([*range(n), len(self.pixels)], "<i8")
        pixels = [None, pa.py_buffer(right), pa.py_buffer(self.pixels)]
        columns = [
            pa.Array.from_buffers(pa.binary(16), n, [None, pa.py_buffer(self.keys.tobytes())]),
            pa.array(self.heights),
            pa.array(self.widths),
            pa.array(checks),
            pa.Array.from_buffers(pa.large_binary(), n, pixels),
        ]
        options = pa.ipc.IpcWriteOptions(compression=self.compression)
        path.unlink()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema, options=options) as out:
            out.write_batch(pa.record_batch(columns, schema=schema))
        content = path.read_bytes()
        assert self.compression or content.count(right.tobytes()) == 1
        path.write_bytes(content.replace(right.tobytes(), self.offsets.tobytes()))
        path.chmod(FILE_MODE)


def changed(array: np.ndarray, value: int, place: int = 0) -> np.ndarray:
    array = array.copy()
    array[place] = value
    return array


def with_bytes(forged: Forged, first: bytes) -> Forged:
    """Replace the bytes of the first image."""
    rest = forged.pixels[forged.offsets[1] :]
    offsets = forged.offsets + (len(first) - forged.offsets[1])
    offsets[0] = 0
    return replace(forged, offsets=offsets, pixels=np.concatenate([np.frombuffer(first, np.uint8), rest]))


def empty_jpeg(forged: Forged) -> bytes:
    """Return a JPEG with the right size in its header, but without tables or pixels."""
    height, width = int(forged.heights[0]), int(forged.widths[0])
    frame = b"\x08" + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x03"
    frame += b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    scan = b"\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    segments = b"".join(
        b"\xff" + marker + (len(body) + 2).to_bytes(2, "big") + body
        for marker, body in (
            (b"\xcb", frame),
            (b"\xda", scan),
        )  # a lossless frame, which no decoder here knows
    )
    return b"\xff\xd8" + segments + b"\xff\xd9"


def other_size(forged: Forged) -> bytes:
    packed = encode_image(np.zeros((forged.widths[0] + 9, forged.heights[0], 3), np.uint8), 90)
    assert packed is not None
    return packed.data.tobytes()
