"""Checks of encoded bytes against the index before anything is decoded: format, size, colour type, wholeness.

Decoders differ in what they make of a file that ends early or is larger than indexed: one pads, one fails, and one that
decodes a region never reads the end. So it is decided here, from the bytes, for every way of decoding alike. JPEG, PNG
and WebP, which several decoders read, are checked here; the other formats are read by Pillow alone, always whole, and
compared by ``decode_pillow`` before it decodes.

A file is whole if its end marker is there: EOI behind the last scan of a JPEG, IEND at the end of a PNG's chunks, as many
bytes as the RIFF header of a WebP says. Bytes behind the end are ignored.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from ..policy.sizes import Size

AGAIN = "the file changed: index again"
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length."""
_SOS, _EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Any marker in entropy-coded data but restarts, which belong to it."""
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_frame = struct.Struct(">HHB").unpack_from
_ihdr = struct.Struct(">IIBB").unpack_from
_length = struct.Struct(">I").unpack_from
_word = struct.Struct("<I").unpack_from

_JPEG_MODES = {1: ("L",), 3: ("RGB",), 4: ("CMYK",)}
_PNG_MODES = {0: ("L", "1", "I;16", "I;16B", "I"), 2: ("RGB",), 3: ("P",), 4: ("LA",), 6: ("RGBA",)}

Facts = tuple[int, int, tuple[str, ...]]
"""Height and width as stored, and the modes, by Pillow's names, that such a file can have."""


class TruncatedError(ValueError):
    """The file ends before its end marker."""


def problem_of(data: bytes, name: str, mode: str, size: Size) -> str:
    """Compare the bytes of a file with the index.

    Args:
        data: the whole file.
        name: its format as indexed.
        mode: Pillow's mode as indexed.
        size: height and width as stored and indexed.

    Returns:
        Why the file cannot be used, or an empty string.
    """
    facts_of = _FACTS.get(name)
    if facts_of is None:
        return ""
    try:
        height, width, modes = facts_of(data)
    except TruncatedError as error:
        return f"truncated {name}: {error}; copy the file again or remove it"
    except (LookupError, ValueError, struct.error):
        return f"expected a {name} as indexed, got another file; {AGAIN}"
    if (height, width) != size:
        return size_problem(size, (height, width))
    if mode not in modes:
        return f"expected pixels of mode {mode} as indexed, got {modes[0]}; {AGAIN}"
    return ""


def size_problem(indexed: Size, found: Size) -> str:
    """Word that a stored picture has another size, height and width, than was indexed."""
    return f"expected {indexed[1]}x{indexed[0]} pixels as indexed, got {found[1]}x{found[0]}; {AGAIN}"


def _jpeg(data: bytes) -> Facts:
    if data[:2] != b"\xff\xd8":
        raise ValueError
    frame, at = _next_segment(data, 2, _SOF)
    height, width, channels = _frame(data, frame + 5)
    if not data.endswith(b"\xff\xd9") or data.find(b"\xff\xda", at) < 0:
        _check_jpeg_end(data, at)
    return height, width, _JPEG_MODES[channels]


def _next_segment(data: bytes, at: int, wanted: frozenset[int]) -> tuple[int, int]:
    """Find the next segment of a kind; returns where it begins and where it ends."""
    end = len(data) - 4
    while at <= end:
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)  # stray bytes between segments, which decoders skip
            if at < 0:
                break
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _ALONE or marker == 0:
            at += 2
        else:
            following = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker in wanted:
                return at, following
            if marker == _EOI:
                break
            at = following
    raise TruncatedError("it ends within its header")


def _check_jpeg_end(data: bytes, at: int) -> None:
    """Walk all scans to the end of the picture, for the few files whose last bytes are not EOI."""
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise TruncatedError("it has no end marker (EOI)")
        at = found.start()
        if data[at + 1] == _EOI:
            return
        if data[at + 1] in _ALONE:
            at += 2
        elif at + 4 > len(data):
            raise TruncatedError("it has no end marker (EOI)")
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])


def _png(data: bytes) -> Facts:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR":
        raise ValueError
    width, height, _, kind = _ihdr(data, 16)
    if not data.endswith(_IEND):
        at = 8
        while data[at + 4 : at + 8] != b"IEND":
            if at + 12 > len(data):
                raise TruncatedError("it has no end (IEND)")
            at += 12 + _length(data, at)[0]
        if at + 12 > len(data):
            raise TruncatedError("it has no end (IEND)")
    return height, width, _PNG_MODES[kind]


def _webp(data: bytes) -> Facts:
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        raise ValueError
    if len(data) < 8 + _word(data, 4)[0]:
        raise TruncatedError(f"it ends at byte {len(data):,} of {8 + _word(data, 4)[0]:,}")
    width, height, has_alpha = webp_canvas(data)
    return height, width, ("RGBA", "RGB") if has_alpha else ("RGB",)  # Pillow looks at the alpha itself


def webp_canvas(data: bytes) -> tuple[int, int, bool]:
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


_FACTS: dict[str, Callable[[bytes], Facts]] = {"jpeg": _jpeg, "png": _png, "webp": _webp}
