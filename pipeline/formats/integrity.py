"""Compares encoded image bytes with the index before decoding: format, size, mode, completeness.

Decoders treat a truncated file, or one that is larger than indexed, differently: one pads, one fails, and one that decodes a
region does not read the end. These checks give the same result for all of them. They cover JPEG, PNG and WebP, which have
several decoders; all other formats are decoded by Pillow only, completely, and compared by ``decode_pillow`` before decoding.

A file is complete if it has its end marker: EOI after the last scan of a JPEG, IEND after a PNG's chunks, the number of
bytes in the RIFF header of a WebP. Trailing bytes are ignored. The chunks of a PNG must match their checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..geometry import Size
from .damage import DamagedError, ImageInfo, TruncatedError
from .jpeg_segments import jpeg_info
from .png_chunks import png_info

COLOR_RULE_VERSION = 3
"""Version of the conversion to RGB; a new one invalidates cached pixels."""
REINDEX_HINT = "the file changed: index again"
RECOPY_HINT = "copy the file again or remove it"
_REFUSED_MODES = frozenset({"I", "F", "LAB"})
_word = struct.Struct("<I").unpack_from


def integrity_problem(data: bytes, name: str, mode: str, size: Size) -> str:
    """Compare the bytes of a file with its row in the index.

    Args:
        data: the complete file.
        name: the indexed format.
        mode: the indexed Pillow mode.
        size: the indexed stored height and width.

    Returns:
        Why the file cannot be used, or an empty string.
    """
    info_of = _INFO_READERS.get(name)
    if info_of is None:
        return ""
    try:
        height, width, modes = info_of(data)
    except DamagedError as error:
        return f"{error.label} {name}: {error}; {RECOPY_HINT}"
    except (LookupError, ValueError, struct.error):
        return f"expected a {name} as indexed, got another file; {REINDEX_HINT}"
    if (height, width) != size:
        return size_mismatch(size, (height, width))
    if mode not in modes:
        return f"expected pixels of mode {mode} as indexed, got {modes[0]}; {REINDEX_HINT}"
    return ""


def size_mismatch(indexed: Size, found: Size) -> str:
    """Return the error text for a stored size (height, width) that differs from the indexed one."""
    return f"expected {indexed[1]}x{indexed[0]} pixels as indexed, got {found[1]}x{found[0]}; {REINDEX_HINT}"


def unsupported_mode(name: str, mode: str) -> str:
    """Return why pixels of a Pillow mode cannot be converted to RGB, or an empty string if they can."""
    if mode not in _REFUSED_MODES or (mode == "I" and name == "ppm"):  # 16-bit PGM, which Pillow scales
        return ""
    return (
        f"expected 8- or 16-bit gray, RGB, palette or CMYK pixels, got Pillow mode {mode}; convert the file"
    )


def _webp_info(data: bytes) -> ImageInfo:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError
    if len(data) < 8 + _word(data, 4)[0]:
        raise TruncatedError(f"it ends at byte {len(data):,} of {8 + _word(data, 4)[0]:,}")
    width, height, has_alpha = webp_size(data)
    return (
        height,
        width,
        ("RGBA", "RGB") if has_alpha else ("RGB",),
    )  # Pillow decides by the alpha data


def webp_size(data: bytes) -> tuple[int, int, bool]:
    """Read width, height and the alpha flag from the first bytes of a WebP.

    Raises:
        LookupError: broken or too short.
    """
    kind = data[12:16]
    if len(data) < 30:
        raise LookupError("fewer than 30 bytes")
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return width, height, bool(data[20] & 0x10)
    if kind == b"VP8L":
        bits = _word(data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)
    if kind == b"VP8 ":
        return (data[26] | data[27] << 8) & 0x3FFF, (data[28] | data[29] << 8) & 0x3FFF, False
    raise LookupError("no picture chunk")


_INFO_READERS: dict[str, Callable[[bytes], ImageInfo]] = {
    "jpeg": jpeg_info,
    "png": png_info,
    "webp": _webp_info,
}
