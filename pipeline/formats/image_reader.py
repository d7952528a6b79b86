"""The one reader of untrusted images with Pillow: a fixed list of formats and bounded headers.

Pillow picks its plugin by content. Without a list a file named ``mask.png`` can reach Ghostscript or any plugin that
some package has registered. Nothing else in this package calls ``Image.open``.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..warning_filter import ignored_warnings

ALLOWED = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
"""Pillow's names of the formats that may be opened, without those that run programs or lack a signature.

``JPEG`` includes MPO, several JPEGs in one file.
"""

MAX_HEADER_BYTES = 16 << 20
"""Most bytes that are read of a file to learn its size, mode and orientation."""

MAX_HEADER_READS = 100_000
"""Most reads for the same: bounds the time that millions of tiny chunks or tags can take."""

_WIDTH_TAG, _HEIGHT_TAG = 256, 257
_PLUGINS = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)  # imported here, so that Pillow does not import every plugin it has, nor threads at once


class HeaderLimitError(ValueError):
    """A header is longer than ``MAX_HEADER_BYTES`` or takes more than ``MAX_HEADER_READS`` reads."""


class BoundedFile(io.RawIOBase):
    """A view of an open file that fails once too much of it was read; the file stays open when it is closed.

    Args:
        file: readable, seekable and at its beginning.
        max_bytes: most bytes in all.
    """

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._reads_left = MAX_HEADER_READS
        self._limited = True

    def lift_limits(self) -> None:
        """End the limits: the header is read, the pixels follow."""
        self._limited = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, or all that is left.

        Raises:
            HeaderLimitError: too much was read.
        """
        if not self._limited:
            return self._file.read(-1 if size is None else size)
        self._reads_left -= 1
        wanted = self._bytes_left + 1 if size is None or size < 0 else min(size, self._bytes_left + 1)
        data = self._file.read(wanted)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise HeaderLimitError(f"its header does not end within {self._max_bytes:,} bytes")
        if self._reads_left < 0:
            raise HeaderLimitError(f"its header has more than {MAX_HEADER_READS:,} parts")
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; fewer bytes only at the end."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True


@contextmanager
def open_image(source: bytes | IO[bytes], *, formats: tuple[str, ...] = ALLOWED) -> Iterator[Image.Image]:
    """Open an image without decoding its pixels; ``load`` or ``np.asarray`` decodes them.

    Warnings of Pillow are ignored inside. Check ``size`` and ``mode`` before decoding.

    Args:
        source: the encoded bytes, or an open file that can seek, of which at most ``MAX_HEADER_BYTES`` are read
            before pixels are asked for. The file stays open.
        formats: Pillow's names, among ``ALLOWED``.

    Raises:
        HeaderLimitError: the header is too long.
        PIL.UnidentifiedImageError: it is none of the formats.
        PIL.Image.DecompressionBombError: it has more pixels than Pillow allows.
        Exception: Pillow's plugins raise many kinds for broken content.
    """
    limit = MAX_HEADER_BYTES + (len(source) if isinstance(source, bytes) else 0)
    bounded = BoundedFile(io.BytesIO(source) if isinstance(source, bytes) else source, limit)
    with ignored_warnings(), Image.open(cast("IO[bytes]", bounded), formats=formats) as image:
        bounded.lift_limits()
        yield image


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return height and width as stored; for TIFF alone Pillow's ``size`` is the one after orientation."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[_HEIGHT_TAG], image.tag_v2[_WIDTH_TAG]
    return image.height, image.width
