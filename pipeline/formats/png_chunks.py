"""Parses the chunks of a PNG: size, mode, checksums and end."""

from __future__ import annotations

import struct
import zlib

from .damage import DamagedError, ImageInfo, TruncatedError

_HEAD_BYTES = 33
"""Size of the signature and the first chunk, IHDR."""
_MODES = {0: ("L",), 2: ("RGB",), 3: ("P",), 4: ("LA",), 6: ("RGBA",)}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bit depths that the standard allows, by color type."""
_ihdr = struct.Struct(">IIBBBBB").unpack_from
_length = struct.Struct(">I").unpack_from


def png_header_info(data: bytes) -> ImageInfo:
    """Read size and modes from the first 33 bytes or more of a PNG.

    Raises:
        LookupError, ValueError, struct.error: not a PNG that conforms to the standard.
    """
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError("no IHDR at the beginning")
    width, height, bits, kind, compression, filtering, interlacing = _ihdr(data, 16)
    if bits not in _BITS.get(kind, ()):
        raise ValueError(f"{bits} bits for colours of kind {kind}")
    if compression or filtering or interlacing > 1:
        raise ValueError(f"compression {compression}, filter {filtering}, interlacing {interlacing}")
    if bits == 1 and kind == 0:
        return height, width, ("1",)
    if bits == 16 and kind in (0, 4):
        return height, width, ("I;16", "I;16B", "I") if kind == 0 else ("LA", "RGBA")
    return height, width, _MODES[kind]


def png_info(data: bytes) -> ImageInfo:
    """Read size and modes of a complete PNG and verify the checksums of its chunks; bytes after IEND are ignored.

    Raises:
        TruncatedError: no IEND chunk.
        DamagedError: a checksum does not match.
        LookupError, ValueError, struct.error: not a PNG.
    """
    info = png_header_info(data)
    view, at, end = memoryview(data), 8, len(data)
    while True:
        if at + 12 > end:
            raise TruncatedError("it has no end (IEND)")
        kind = data[at + 4 : at + 8]
        next_at = at + 12 + _length(data, at)[0]
        if next_at > end:
            raise TruncatedError(f"it ends within its chunk {_name(kind)}")
        if zlib.crc32(view[at + 4 : next_at - 4]) != _length(data, next_at - 4)[0]:
            raise DamagedError(f"its chunk {_name(kind)} has another checksum than the file says")
        if kind == b"IEND":
            return info
        at = next_at


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "backslashreplace")
