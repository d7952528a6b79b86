"""Finds the EXIF block and the ICC profile of a file, without decoding it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from .jpeg_traces import jpeg_segments

MAX_BLOCK_BYTES = 1 << 20
"""Longer blocks are cut off: cameras and descriptions stand at their beginning."""
MAX_CHUNKS = 4096
_APP1, _APP2 = 0xE1, 0xE2
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_ICC_TAG = 34675

Blocks = tuple[bytes | None, bytes | None]
"""EXIF block, which starts with the TIFF header, and ICC profile."""


def metadata_blocks(data: bytes, format: str) -> Blocks:
    """Return the EXIF block and the ICC profile of a JPEG, PNG, WebP or TIFF; None for what it does not have."""
    finder = _FINDERS.get(format)
    try:
        return finder(data) if finder else (None, None)
    except (LookupError, ValueError, struct.error, zlib.error):
        return None, None


def _of_jpeg(data: bytes) -> Blocks:
    exif: bytes | None = None
    profile = b""
    for marker, start, end in jpeg_segments(data):
        if marker == _APP1 and exif is None and data.startswith(_EXIF, start):
            exif = data[start + len(_EXIF) : end]
        elif marker == _APP2 and data.startswith(_ICC, start) and len(profile) < MAX_BLOCK_BYTES:
            profile += data[start + len(_ICC) + 2 : end]  # encoders write the parts in order
    return exif, profile or None


def _of_png(data: bytes) -> Blocks:
    exif: bytes | None = None
    profile: bytes | None = None
    at = 8
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        content = data[at + 8 : at + 8 + min(length, MAX_BLOCK_BYTES)] if kind in (b"eXIf", b"iCCP") else b""
        if kind == b"eXIf" and exif is None:
            exif = content
        elif kind == b"iCCP" and profile is None:
            packed = content[content.index(b"\0") + 2 :]
            profile = zlib.decompressobj().decompress(packed, MAX_BLOCK_BYTES)
        elif kind == b"IEND":
            break
        at += length + 12
    return exif, profile


def _of_webp(data: bytes) -> Blocks:
    found: dict[bytes, bytes] = {}
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in (b"EXIF", b"ICCP") and kind not in found:
            found[kind] = data[at + 8 : at + 8 + min(length, MAX_BLOCK_BYTES)]
        at += 8 + length + length % 2
    exif = found.get(b"EXIF")
    return exif.removeprefix(_EXIF) if exif else None, found.get(b"ICCP")


def _of_tiff(data: bytes) -> Blocks:
    """Return the file itself, whose first directory has the tags of EXIF, and its profile."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None, None
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    entries = data[at + 2 : at + 2 + 12 * min(count, MAX_CHUNKS)]
    for tag, _, size, where in struct.iter_unpack(order + "HHII", entries[: len(entries) // 12 * 12]):
        if tag == _ICC_TAG:
            return data, data[where : where + min(size, MAX_BLOCK_BYTES)]
    return data, None


_FINDERS: dict[str, Callable[[bytes], Blocks]] = {
    "jpeg": _of_jpeg,
    "png": _of_png,
    "webp": _of_webp,
    "tiff": _of_tiff,
}
