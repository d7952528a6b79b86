"""Reads image headers: size, mode, format and EXIF orientation, without decoding pixels."""

from __future__ import annotations

import logging
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from ..errors import RunError
from ..warning_filter import ignored_warnings
from .image_reader import MAX_HEADER_READS, open_image, stored_size
from .integrity import unsupported_mode, webp_size
from .jpeg_headers import read_common_jpeg, read_common_orientation
from .png_chunks import png_header_info

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused: 512 MiB of RGB, Pillow's threshold for decompression bombs."""

FORMATS = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm", "avif", "jpeg2000")
"""Supported formats, detected by content."""

CANNOT_OPEN = "cannot be opened: "
"""Prefix of a status that concerns the file system, not the content: it may change while the file does not."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
)
_ORIENTATION_TAG = 274
_WEBP_EXIF = 0x08
_MAX_EXIF = 1 << 20

# Without a handler Python would print Pillow's log messages about broken files, which their status covers.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Header:
    """Header of one image file, or of its first frame."""

    width: int = 0
    """Pixels as stored, before EXIF orientation; 0 if unknown."""
    height: int = 0
    channels: int = 0
    mode: str = ""
    """Pillow mode, such as ``RGB``, ``L``, ``P`` or ``I;16``."""
    format: str = ""
    """By content, lower case: one of ``FORMATS``, or Pillow's name."""
    orientation: int = 1
    """EXIF 1..8."""
    status: str = "ok"
    """``ok``, or why the file cannot be used, in one line."""


def read_header(path: str | Path) -> Header:
    """Read the header of one file without decoding pixels; a bad file gets an error status.

    The format is detected by content, not by file name. For animations and multi-page files the first frame is
    used. Does not raise for bad, missing or unreadable files.
    """
    try:
        # open() would block on a FIFO.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - faster than pathlib, called per file
            return Header(status=f"{CANNOT_OPEN}not a regular file")
        with open(path, "rb") as file:  # noqa: PTH123
            return read_header_from(file)
    except FileNotFoundError:
        return Header(status=f"{CANNOT_OPEN}file not found")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return Header(status=one_line(f"{CANNOT_OPEN}{getattr(error, 'strerror', None) or error}"))


def one_line(text: str) -> str:
    """Convert a text to one line of valid UTF-8 with at most 200 characters."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())[:200]


def read_header_from(file: IO[bytes]) -> Header:
    """Read the header from an open seekable file, like ``read_header``.

    Raises only I/O errors, none for bad content.
    """
    start = file.read(32)
    if not start:
        return Header(status="empty file: 0 bytes")
    name = _format_of(start)
    file.seek(0)
    # Pillow's plugins raise many kinds of errors on broken input (OSError, SyntaxError, struct.error, KeyError,
    # OverflowError, MemoryError, ...). Each becomes the status of its image.
    try:
        return _read(file, name)
    except Image.DecompressionBombError:
        return Header(format=name, status=f"too large: more than {MAX_PIXELS:,} pixels")
    except (UnidentifiedImageError, struct.error):
        if name:
            return Header(format=name, status=f"broken {name}: its header cannot be read")
        return Header(status=f"not a known image format: starts with {start[:8].hex(' ')}")
    except RunError:
        raise  # the source is unavailable, not the image broken
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Header(format=name, status=one_line(f"broken {name or 'file'}: {reason}"))


def _format_of(start: bytes) -> str:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    return next((name for magic, name in _MAGIC if start.startswith(magic)), "")


def _read(file: IO[bytes], name: str) -> Header:
    if name == "webp":
        return _webp_header(file)
    if name == "jpeg" and (header := _common_jpeg_header(file)) is not None:
        return header
    if name == "png":
        png_header_info(file.read(33))
    file.seek(0)
    return _read_with_pillow(file)


def _common_jpeg_header(file: IO[bytes]) -> Header | None:
    """Read the header of a common JPEG; None for those that need Pillow."""
    found = read_common_jpeg(file)
    if found is None or found[0] * found[1] > MAX_PIXELS:
        return None
    width, height, mode, block = found
    return Header(width, height, len(mode), mode, "jpeg", _parse_orientation(block))


def _read_with_pillow(file: IO[bytes]) -> Header:
    with open_image(file) as image:
        return _describe(image, file)


def _describe(image: Image.Image, file: IO[bytes]) -> Header:
    height, width = stored_size(image)
    name = (image.format or "").lower()
    name = "jpeg" if name == "mpo" else name  # several JPEGs in one file
    status = "ok"
    if width <= 0 or height <= 0:
        status = f"broken {name}: {width}x{height} pixels"
    elif width * height > MAX_PIXELS:
        status = f"too large: {width}x{height} is more than {MAX_PIXELS:,} pixels"
    elif problem := unsupported_mode(name, image.mode):
        status = problem
    return Header(
        width=_clamp_int32(width),
        height=_clamp_int32(height),
        channels=len(image.getbands()),
        mode=image.mode,
        format=name,
        orientation=_read_orientation_tag(image, name, file),
        status=status,
    )


def _webp_header(file: IO[bytes]) -> Header:
    """Read the header and EXIF chunk of a WebP; Pillow would read the complete file."""
    start = file.read(30)
    width, height, has_alpha = webp_size(start)
    block = None
    if start[12:16] == b"VP8X" and start[20] & _WEBP_EXIF:
        at = 12
        for _ in range(MAX_HEADER_READS):
            file.seek(at)
            if len(head := file.read(8)) < 8:
                break
            kind, length = struct.unpack("<4sI", head)
            if kind == b"EXIF":
                block = file.read(min(length, _MAX_EXIF))
                break
            at += 8 + length + length % 2
    too_large = width * height > MAX_PIXELS
    return Header(
        width=width,
        height=height,
        channels=4 if has_alpha else 3,
        mode="RGBA" if has_alpha else "RGB",
        format="webp",
        orientation=_parse_orientation(block),
        status=f"too large: more than {MAX_PIXELS:,} pixels"
        if too_large
        else "ok"
        if width * height
        else "broken webp: no pixels",
    )


def _clamp_int32(size: int) -> int:
    return size if 0 <= size < 2**31 else 0


def _read_orientation_tag(image: Image.Image, name: str, file: IO[bytes]) -> int:
    """Return the EXIF orientation; 1 if it is missing or invalid, as images with broken EXIF are usable."""
    found: object = None
    with suppress(Exception):  # Pillow's EXIF parser raises many kinds of errors, too
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            found = image.tag_v2.get(_ORIENTATION_TAG)
        else:
            block = _png_exif(file) if name == "png" else image.info.get("exif")
            return _parse_orientation(block)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _parse_orientation(block: bytes | None) -> int:
    """Return the orientation of an EXIF block; 1 if it is missing or invalid."""
    found: object = None
    with suppress(Exception), ignored_warnings():  # as above
        if block and (found := read_common_orientation(block)) is None:
            exif = Image.Exif()
            exif.load(block)
            found = exif.get(_ORIENTATION_TAG)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _png_exif(file: IO[bytes]) -> bytes | None:
    """Return the first eXIf chunk, which may follow the pixels; Pillow would use the last one."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return file.read(length)
        if kind == b"IEND":
            return None
        file.seek(length + 4, os.SEEK_CUR)
    return None
