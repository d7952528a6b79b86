"""Parses the segments of a JPEG: size, chroma subsampling, completeness and missing scans."""

from __future__ import annotations

import re
import struct

from .damage import ImageInfo, TruncatedError

_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""JPEG markers without a length."""
_SOS, _EOI = 0xDA, 0xD9
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""Any marker in entropy-coded data except restarts, which are part of it."""
_NUM_SMOOTHING_COEFFICIENTS = 10
"""Number of leading coefficients by which libjpeg decides on interblock smoothing."""
_frame = struct.Struct(">HHB").unpack_from
_MODES = {1: ("L",), 3: ("RGB",), 4: ("CMYK",)}


def jpeg_info(data: bytes) -> ImageInfo:
    """Read size and modes of a complete JPEG.

    Raises:
        TruncatedError: no end marker.
        LookupError, ValueError, struct.error: not a JPEG.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError
    frame, at = _next_segment(data, 2, _SOF)
    height, width, channels = _frame(data, frame + 5)
    if not data.endswith(b"\xff\xd9") or data.find(b"\xff\xda", at) < 0:
        _check_end(data, at)
    return height, width, _MODES[channels]


def chroma_subsampling_ratio(data: bytes) -> int:
    """Return the ratio of the chroma subsampling factors of the two axes.

    1 for 4:4:4, 4:2:0 and gray; 2 for 4:2:2 and 4:4:0; 4 for 4:1:1. In a decode at reduced size, a scaled inverse DCT
    compensates subsampling that is equal along both axes, and no other. 1 if the data is not a JPEG.
    """
    try:
        frame, _ = _next_segment(data, 2, _SOF)
        factors = [data[frame + 11 + 3 * number] for number in range(data[frame + 9])]
        across, down = (
            max(part) // min(part) for part in ([one >> 4 for one in factors], [one & 15 for one in factors])
        )
    except (LookupError, ValueError, ZeroDivisionError):
        return 1
    return max(across, down) // min(across, down)


def uses_interblock_smoothing(data: bytes) -> bool:
    """Return whether decoders apply interblock smoothing, as for a progressive JPEG without its last scans.

    Then a pixel depends on distant blocks, and a decoded region differs from a crop of the complete image. False if the
    data is not a JPEG.
    """
    try:
        frame, at = _next_segment(data, 2, _SOF)
        if data[frame + 1] not in _PROGRESSIVE:
            return False
        names = data[frame + 10 : frame + 10 + 3 * data[frame + 9] : 3]
        return bool(
            _unsent_coefficients(
                data, at, {(name, k) for name in names for k in range(_NUM_SMOOTHING_COEFFICIENTS)}
            )
        )
    except (LookupError, ValueError):
        return False


def _unsent_coefficients(data: bytes, at: int, wanted: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Walk all scans and return those of the coefficients, by component and number, that are not sent to the last bit."""
    while wanted and (found := _MARKER.search(data, at)) is not None and data[found.start() + 1] != _EOI:
        at = found.start()
        if data[at + 1] in _STANDALONE:
            at += 2
            continue
        if data[at + 1] == _SOS:
            end = at + 5 + 2 * data[at + 4]
            first, last, bits = data[end : end + 3]
            if bits & 15 == 0:
                numbers = range(first, min(last + 1, _NUM_SMOOTHING_COEFFICIENTS))
                wanted -= {(name, k) for name in data[at + 5 : end : 2] for k in numbers}
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return wanted


def _next_segment(data: bytes, at: int, wanted: frozenset[int]) -> tuple[int, int]:
    """Find the next segment of a kind; return the offsets of its start and end."""
    end = len(data) - 4
    while at <= end:
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)  # decoders skip stray bytes between segments
            if at < 0:
                break
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _STANDALONE or marker == 0:
            at += 2
        else:
            next_at = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker in wanted:
                return at, next_at
            if marker == _EOI:
                break
            at = next_at
    raise TruncatedError("it ends within its header")


def _check_end(data: bytes, at: int) -> None:
    """Walk all scans to the end of the image, for the few files whose last bytes are not EOI."""
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            raise TruncatedError("it has no end marker (EOI)")
        at = found.start()
        if data[at + 1] == _EOI:
            return
        if data[at + 1] in _STANDALONE:
            at += 2
        elif at + 4 > len(data):
            raise TruncatedError("it has no end marker (EOI)")
        else:
            at += 2 + (data[at + 2] << 8 | data[at + 3])
