"""Traces of a JPEG's encoder: quality by its quantization tables, chroma subsampling, progressive or not."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SEGMENTS = 2048
"""Segments before the first scan that are looked at; an ICC profile or extended XMP takes up to 255."""
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_DQT, _SOS, _EOI = 0xDB, 0xDA, 0xD9
_NAMES = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
    (4, 2): "4:1:0",
}
_LUMA = (
    *(16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40),
    *(26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51),
    *(56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87),
    *(95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99),
)
"""Table K.1 of ITU-T T.81 (luminance), in zigzag order."""
_CHROMA = (
    *(17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99),
    *(99,) * 48,
)
"""Table K.2 (chrominance), in zigzag order."""


@dataclass(frozen=True, slots=True)
class JpegTraces:
    """Choices of the encoder of a JPEG; None where the header lacks them."""

    quality: int | None
    chroma_subsampling: str | None
    is_progressive: bool


def jpeg_traces(data: bytes) -> JpegTraces | None:
    """Read the traces of a JPEG's encoder; None if no complete frame header precedes the first scan."""
    tables: dict[int, bytes] = {}
    try:
        frame = b""
        is_progressive = False
        for marker, start, end in jpeg_segments(data):
            if marker == _DQT:
                tables.update(_quantization_tables(data[start:end]))
            elif marker in _FRAMES and not frame:
                frame, is_progressive = data[start:end], marker in _PROGRESSIVE
        components = [frame[6 + 3 * number : 9 + 3 * number] for number in range(frame[5])]
        quality = _quality_of(components, tables)
        return JpegTraces(quality, _subsampling_of(components), is_progressive)
    except (LookupError, ValueError, struct.error):
        return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Iterate over the segments before the first scan: marker, start and end of the content."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or (marker := data[found.start() + 1]) in (_SOS, _EOI):
            return
        at = found.end()
        if marker in _STANDALONE:
            continue
        if at + 2 > len(data):
            return
        end = at + max(2, data[at] << 8 | data[at + 1])
        if end > len(data):
            return
        yield marker, at + 2, end
        at = end


def jpeg_quality(luma: tuple[int, ...], chroma: tuple[int, ...] | None) -> int:
    """Estimate the quality setting, 1..100, from quantization tables in zigzag order.

    The setting whose tables differ least, in the sum of squares, where the tables of setting Q are those of ITU-T T.81,
    Annex K, scaled as the library of the Independent JPEG Group does: ``clip((S * table + 50) // 100, 1, 255)`` with
    ``S = 5000 // Q`` below 50, else ``200 - 2 * Q`` (jcparam.c, ``jpeg_set_quality``). Exact for encoders that use that
    library's tables, among them Pillow's and OpenCV's; for others the nearest setting.
    """
    given = np.asarray(luma if chroma is None else (*luma, *chroma), np.int64)
    differences = _tables_by_quality()[:, : len(given)] - given
    return int((differences**2).sum(axis=1).argmin()) + 1


@lru_cache(1)
def _tables_by_quality() -> NDArray[np.int64]:
    """Return both tables of every setting, shape (100, 128)."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.asarray(np.clip((scale * np.asarray(_LUMA + _CHROMA) + 50) // 100, 1, 255), np.int64)


_cached_quality = lru_cache(1024)(jpeg_quality)


def _quantization_tables(content: bytes) -> Mapping[int, bytes]:
    """Split a DQT segment into tables by number, each 64 values of 8 or 16 bits."""
    found, at = {}, 0
    while at < len(content):
        size = 128 if content[at] >> 4 else 64
        table = content[at + 1 : at + 1 + size]
        if len(table) < size:
            raise ValueError("a table is cut off")
        found[content[at] & 15] = table
        at += 1 + size
    return found


def _quality_of(components: list[bytes], tables: Mapping[int, bytes]) -> int | None:
    """Return the estimated quality by the tables of the first two components; None without a table."""
    if not components or components[0][2] not in tables:
        return None
    chroma = tables.get(components[1][2]) if len(components) == 3 else None
    return _cached_quality(_values(tables[components[0][2]]), None if chroma is None else _values(chroma))


def _values(table: bytes) -> tuple[int, ...]:
    return tuple(table) if len(table) == 64 else struct.unpack(">64H", table)


def _subsampling_of(components: list[bytes]) -> str | None:
    """Name the subsampling of the chroma components relative to luma; None for gray, CMYK and uncommon factors."""
    if len(components) != 3:
        return None
    across, down = ([one[1] >> 4 for one in components], [one[1] & 15 for one in components])
    if across[1] != across[2] or down[1] != down[2] or not (across[1] and down[1]):
        return None
    if across[0] % across[1] or down[0] % down[1]:
        return None
    return _NAMES.get((across[0] // across[1], down[0] // down[1]))
