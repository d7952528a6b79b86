"""The segments of a JPEG: size, sampling, whether it is whole, and what its scans leave out."""

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
"""Any marker in entropy-coded data but restarts, which belong to it."""
_NUM_SMOOTHING_COEFFICIENTS = 10
"""So many coefficients, from the first, libjpeg looks at to decide whether it smooths between blocks."""
_frame = struct.Struct(">HHB").unpack_from
_MODES = {1: ("L",), 3: ("RGB",), 4: ("CMYK",)}


def jpeg_info(data: bytes) -> ImageInfo:
    """Read size and modes of a whole JPEG.

    Raises:
        TruncatedError: it has no end.
        LookupError, ValueError, struct.error: it is no JPEG.
    """
    if data[:2] != b"\xff\xd8":
        raise ValueError
    frame, at = _next_segment(data, 2, _SOF)
    height, width, channels = _frame(data, frame + 5)
    if not data.endswith(b"\xff\xd9") or data.find(b"\xff\xda", at) < 0:
        _check_end(data, at)
    return height, width, _MODES[channels]


def chroma_subsampling_ratio(data: bytes) -> int:
    """Say how many times coarser colour is than brightness along one side compared with the other.

    1 for 4:4:4, 4:2:0 and gray; 2 for 4:2:2 and 4:4:0; 4 for 4:1:1. Where a JPEG is decoded at a fraction of its size,
    the inverse DCT makes up for sampling that is the same along both sides, and for no other. 1 for what is no JPEG.
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
    """Say whether decoders smooth between blocks, as of a progressive JPEG whose last scans are missing.

    Then a pixel depends on blocks far from it, and a region decoded alone differs from one cut out of the whole. False
    for what is no JPEG.
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
    """Walk scans and leave of the wanted coefficients, by component and number, those that are not sent to the last bit."""
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
    """Walk all scans to the end of the picture, for the few files whose last bytes are not EOI."""
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
