"""A file that is read by ranges: what parsers of headers skip is never fetched."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

HEADER_BYTES = 64 * 1024
"""Fetched at once of a single file: most headers with their EXIF are shorter."""
SHARD_BYTES = 512 * 1024
"""Fetched at once of a shard: about what passes while one request is waited for."""


class RangeFile(io.RawIOBase):
    """A seekable file over ``read(offset, size)``; keeps the last range. One thread at a time.

    Args:
        read: reads up to ``size`` bytes at an offset.
        size: of the whole.
        block_bytes: least that is fetched at once.
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
        """Read up to ``size`` bytes at an offset, from what was fetched where that holds them."""
        size = max(0, min(size, self._size - offset))
        if size and not (self._start <= offset and offset + size <= self._start + len(self._block)):
            self._block = self._read(offset, min(max(size, self._block_bytes), self._size - offset))
            self._start = offset
        first = offset - self._start
        return self._block[first : first + size]

    def part(self, offset: int, size: int) -> RangeFile:
        """Open a part of it, which shares what was fetched."""
        return RangeFile(lambda start, number: self.read_at(offset + start, number), size, HEADER_BYTES)

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; less than it takes only at the end."""
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is fetched."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(22, "a place before the beginning")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the place of the next read."""
        return self._position

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True
