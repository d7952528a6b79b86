"""Whether a file has more than one frame or page, by its structure."""

from __future__ import annotations

import struct
from collections.abc import Callable

MAX_BLOCKS = 1 << 16
"""Blocks or chunks of a file that are looked at."""
_IMAGE, _EXTENSION = 0x2C, 0x21
_WEBP_ANIMATION = 0x02


def has_several_frames(data: bytes, format: str) -> bool | None:
    """Return whether a file has more than one frame or page; None if its structure cannot be read.

    Args:
        data: the complete file.
        format: format by content, as in the index.
    """
    finder = _FINDERS.get(format)
    try:
        return finder(data) if finder else False
    except (LookupError, struct.error):
        return None


def _of_gif(data: bytes) -> bool | None:
    """Walk over the blocks of GIF89a, section 17 to 26, up to the second image."""
    at = 13 + _color_table_bytes(data[10])
    num_images = 0
    for _ in range(MAX_BLOCKS):
        kind = data[at]
        if kind == _IMAGE:
            num_images += 1
            if num_images > 1:
                return True
            at += 11 + _color_table_bytes(data[at + 9])
        elif kind == _EXTENSION:
            at += 2
        else:
            return False
        for _ in range(MAX_BLOCKS):
            length = data[at]
            at += 1 + length
            if not length:
                break
    return None


def _color_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _of_png(data: bytes) -> bool:
    """Look for an animation control chunk of several frames before the pixels (PNG, third edition, 11.3.6.1)."""
    at = 8
    for _ in range(MAX_BLOCKS):
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        if kind == b"acTL":
            return bool(struct.unpack_from(">I", data, at + 8)[0] > 1)
        if kind in (b"IDAT", b"IEND"):
            break
        at += length + 12
    return False


def _of_webp(data: bytes) -> bool:
    return data[12:16] == b"VP8X" and bool(data[20] & _WEBP_ANIMATION)


def _of_tiff(data: bytes) -> bool | None:
    """Return whether a second directory follows the first (TIFF 6.0, section 2)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    return bool(struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0])


_FINDERS: dict[str, Callable[[bytes], bool | None]] = {
    "gif": _of_gif,
    "png": _of_png,
    "webp": _of_webp,
    "tiff": _of_tiff,
}
