"""Checks of encoded bytes against the index before anything is decoded: format, size, kind of pixels, wholeness.

Decoders differ in what they make of a file that ends early or is larger than indexed: one pads, one fails, and one that
decodes a region never reads the end. So it is decided here, from the bytes, for every way of decoding alike. JPEG, PNG
and WebP, which several decoders read, are checked here; the other formats are read by Pillow alone, always whole, and
compared by ``decode_pillow`` before it decodes.

A file is whole if its end marker is there: EOI behind the last scan of a JPEG, IEND at the end of a PNG's chunks, as many
bytes as the RIFF header of a WebP says. Bytes behind the end are ignored. The chunks of a PNG match their checksums.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..geometry import Size
from .damage import DamagedError, ImageInfo, TruncatedError
from .jpeg_segments import jpeg_info
from .png_chunks import png_info

COLOR_RULE_VERSION = 3
"""Raised when the same file becomes other RGB pixels than before: cached ones are then made anew."""
REINDEX_HINT = "the file changed: index again"
RECOPY_HINT = "copy the file again or remove it"
_REFUSED_MODES = frozenset({"I", "F", "LAB"})
_word = struct.Struct("<I").unpack_from


def integrity_problem(data: bytes, name: str, mode: str, size: Size) -> str:
    """Compare the bytes of a file with the index.

    Args:
        data: the whole file.
        name: its format as indexed.
        mode: Pillow's mode as indexed.
        size: height and width as stored and indexed.

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
    """Word that a stored picture has another size, height and width, than was indexed."""
    return f"expected {indexed[1]}x{indexed[0]} pixels as indexed, got {found[1]}x{found[0]}; {REINDEX_HINT}"


def unsupported_mode(name: str, mode: str) -> str:
    """Say why pixels of a mode of Pillow cannot become RGB by the stated rule; an empty string where they can."""
    if mode not in _REFUSED_MODES or (mode == "I" and name == "ppm"):  # PGM with 16 bits, which Pillow scales
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
    return height, width, ("RGBA", "RGB") if has_alpha else ("RGB",)  # Pillow looks at the alpha itself


def webp_size(data: bytes) -> tuple[int, int, bool]:
    """Read width, height and whether there is alpha from the beginning of a WebP.

    Raises:
        LookupError: it is broken or too short.
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
