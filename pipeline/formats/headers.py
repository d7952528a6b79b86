"""What an image file says of itself before any pixel is decoded."""

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
"""Images with more pixels get a status: 512 MiB of RGB, the size at which Pillow speaks of a bomb."""

FORMATS = ("jpeg", "png", "webp", "tiff", "bmp", "gif", "ppm", "avif", "jpeg2000")
"""Formats that are decoded, told by content."""

CANNOT_OPEN = "cannot be opened: "
"""Start of a status that is about the file system, not the content: it may heal without the file changing."""

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

# Where nobody set up logging, Python prints what Pillow logs about broken files. Their status says it.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Header:
    """The header of one image file; of its first frame where it has several."""

    width: int = 0
    """Pixels as stored, before EXIF orientation; 0 if unknown."""
    height: int = 0
    channels: int = 0
    mode: str = ""
    """Pillow's name, such as ``RGB``, ``L``, ``P`` or ``I;16``."""
    format: str = ""
    """By content, lower case: one of ``FORMATS`` or what Pillow calls it."""
    orientation: int = 1
    """EXIF 1..8."""
    status: str = "ok"
    """``ok``, or in one line why the file cannot be used."""


def read_header(path: str | Path) -> Header:
    """Read the header of one file without decoding pixels; a bad file gets a status.

    The format is told by content, the file's name does not matter. Of animations and multi-page files the
    first frame is taken. Never raises for a bad, missing or unreadable file.
    """
    try:
        # A FIFO would block in open() for ever.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - as fast as it gets, called per file
            return Header(status=f"{CANNOT_OPEN}not a regular file")
        with open(path, "rb") as file:  # noqa: PTH123
            return read_header_from(file)
    except FileNotFoundError:
        return Header(status=f"{CANNOT_OPEN}file not found")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        return Header(status=one_line(f"{CANNOT_OPEN}{getattr(error, 'strerror', None) or error}"))


def one_line(text: str) -> str:
    """Fold a text into one line of at most 200 characters that any encoding-strict store accepts."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())[:200]


def read_header_from(file: IO[bytes]) -> Header:
    """Read the header from an open file that can seek, as ``read_header`` does.

    Errors of the file itself, other than of its content, are raised.
    """
    start = file.read(32)
    if not start:
        return Header(status="empty file: 0 bytes")
    name = _format_of(start)
    file.seek(0)
    # Pillow's plugins raise nearly anything on broken input (OSError, SyntaxError, struct.error, KeyError,
    # OverflowError, MemoryError, ...). One bad image costs one image: whatever it is becomes its status.
    try:
        return _read(file, name)
    except Image.DecompressionBombError:
        return Header(format=name, status=f"too large: more than {MAX_PIXELS:,} pixels")
    except (UnidentifiedImageError, struct.error):
        if name:
            return Header(format=name, status=f"broken {name}: its header cannot be read")
        return Header(status=f"not a known image format: starts with {start[:8].hex(' ')}")
    except RunError:
        raise  # the source is down; the image is not to blame
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
    """Read the header of most JPEGs, as Pillow does; None for those that are left to it."""
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
    name = "jpeg" if name == "mpo" else name  # several JPEGs in one file; the first is an ordinary one
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
    """Read a WebP's header and EXIF chunk alone: Pillow would read all of the file."""
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
    """EXIF orientation; 1 where there is none or it makes no sense: broken EXIF does not spoil an image."""
    found: object = None
    with suppress(Exception):  # the EXIF parser raises as many kinds as the plugins do; see the line above
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            found = image.tag_v2.get(_ORIENTATION_TAG)
        else:
            block = _png_exif(file) if name == "png" else image.info.get("exif")
            return _parse_orientation(block)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _parse_orientation(block: bytes | None) -> int:
    """Read the orientation from an EXIF block; 1 where there is none or it makes no sense."""
    found: object = None
    with suppress(Exception), ignored_warnings():  # as above
        if block and (found := read_common_orientation(block)) is None:
            exif = Image.Exif()
            exif.load(block)
            found = exif.get(_ORIENTATION_TAG)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _png_exif(file: IO[bytes]) -> bytes | None:
    """Find the first eXIf chunk by walking chunk headers; it may stand after the pixels, and Pillow takes the last."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            return file.read(length)
        if kind == b"IEND":
            return None
        file.seek(length + 4, os.SEEK_CUR)
    return None
