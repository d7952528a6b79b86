"""Opens untrusted images with Pillow: a fixed list of formats and bounded headers.

Pillow selects its plugin by content. Without a list of formats, a file named ``mask.png`` could reach Ghostscript or any
plugin that another package registered. No other module calls ``Image.open``.
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
"""Pillow's names of the allowed formats, without those that run programs or lack a signature.

``JPEG`` includes MPO, several JPEGs in one file.
"""

MAX_HEADER_BYTES = 16 << 20
"""Most bytes that are read for size, mode and orientation of a file."""

MAX_HEADER_READS = 100_000
"""Most reads for the same, which bounds the time for millions of tiny chunks or tags."""

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
)  # imported here, so that Pillow does not import all of its plugins, or import them in several threads at once


class HeaderLimitError(ValueError):
    """A header is longer than ``MAX_HEADER_BYTES`` or takes more than ``MAX_HEADER_READS`` reads."""


class BoundedFile(io.RawIOBase):
    """Wrapper of an open file with a limit on bytes and reads; closing it leaves the file open.

    Args:
        file: readable, seekable and at its start.
        max_bytes: most bytes in total.
    """

    def __init__(self, file: IO[bytes], max_bytes: int) -> None:
        super().__init__()
        self._file = file
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._reads_left = MAX_HEADER_READS
        self._limited = True

    def lift_limits(self) -> None:
        """Remove the limits, once the header is read."""
        self._limited = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to ``size`` bytes, or all remaining ones.

        Raises:
            HeaderLimitError: a limit is exceeded.
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
        """Fill a buffer; returns fewer bytes only at the end of the file."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
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

    Pillow's warnings are ignored within the context. Check ``size`` and ``mode`` before decoding.

    Args:
        source: the encoded bytes, or an open seekable file, of which at most ``MAX_HEADER_BYTES`` are read
            before its pixels are decoded. The file stays open.
        formats: Pillow's names, a subset of ``ALLOWED``.

    Raises:
        HeaderLimitError: the header is too long.
        PIL.UnidentifiedImageError: not one of the formats.
        PIL.Image.DecompressionBombError: more pixels than Pillow allows.
        Exception: Pillow's plugins raise many kinds of errors for broken content.
    """
    limit = MAX_HEADER_BYTES + (len(source) if isinstance(source, bytes) else 0)
    bounded = BoundedFile(io.BytesIO(source) if isinstance(source, bytes) else source, limit)
    with ignored_warnings(), Image.open(cast("IO[bytes]", bounded), formats=formats) as image:
        bounded.lift_limits()
        yield image


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return the stored height and width; only for TIFF, Pillow's ``size`` is that after EXIF orientation."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return image.tag_v2[_HEIGHT_TAG], image.tag_v2[_WIDTH_TAG]
    return image.height, image.width
