"""Seekable file over range requests: parsers fetch only the bytes they read."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

HEADER_BYTES = 64 * 1024
"""Block size for image files: most headers with their EXIF are shorter."""
SHARD_BYTES = 512 * 1024
"""Block size for shards: about the bytes that a connection transfers in one round trip."""


class RangeFile(io.RawIOBase):
    """Seekable file over ``read(offset, size)`` that buffers the last block. Not thread-safe.

    Args:
        read: reads up to ``size`` bytes at an offset.
        size: of the file in bytes.
        block_bytes: smallest read.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int, block_bytes: int) -> None:
        super().__init__()
        self._read = read
        self._size = size
        self._block_bytes = block_bytes
        self._position = 0
        self._start = 0
        self._block = b""

    def read_at(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes at an offset, from the buffered block where it holds them."""
        size = max(0, min(size, self._size - offset))
        if size and not (self._start <= offset and offset + size <= self._start + len(self._block)):
            self._block = self._read(offset, min(max(size, self._block_bytes), self._size - offset))
            self._start = offset
        first = offset - self._start
        return self._block[first : first + size]

    def part(self, offset: int, size: int) -> RangeFile:
        """Open a byte range as a file; it shares the buffered block."""
        return RangeFile(lambda start, number: self.read_at(offset + start, number), size, HEADER_BYTES)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; returns fewer bytes only at the end of the file."""
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; fetches nothing."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "a position before the beginning")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True
