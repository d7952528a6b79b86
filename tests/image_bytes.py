"""Builds image files byte by byte, with expected results: JPEG segments, PNG and WebP chunks, TIFF tags."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 274
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


@dataclass(frozen=True)
class ImageFile:
    """A generated file and its expected result."""

    name: str
    """Description, with the expected result between dots: ``upright``, ``refused`` or ``damaged``."""
    data: bytes
    upright: np.ndarray | None = None
    """Expected pixels, uint8 HWC RGB, if the file must be readable."""
    mean_error: float = 0.0
    """Tolerated mean error of the pixels, of 255, for lossy formats."""
    refusal: str = ""
    """Text that the error must contain, if the file must be refused."""


def good(what: str, suffix: str, data: bytes, upright: np.ndarray, mean_error: float = 0.0) -> ImageFile:
    """Return a file that every decoder must read."""
    image = np.repeat(upright[..., None], 3, axis=2) if upright.ndim == 2 else upright
    return ImageFile(f"{what}.upright.{suffix}", data, image, mean_error)


def bad(what: str, suffix: str, data: bytes, refusal: str) -> ImageFile:
    """Return a file that every decoder must refuse."""
    return ImageFile(f"{what}.refused.{suffix}", data, refusal=refusal)


def damaged(what: str, suffix: str, data: bytes) -> ImageFile:
    """Return a file with damage that only decoding may detect: all decoders give the same pixels, or the same error."""
    return ImageFile(f"{what}.damaged.{suffix}", data)


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    made = image if isinstance(image, Image.Image) else Image.fromarray(image)
    made.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to stored pixels, by the table of the standard."""
    rotated = {1: 0, 2: 0, 3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}[orientation]
    image = np.rot90(stored, rotated)
    return np.ascontiguousarray(image[:, ::-1] if orientation in (2, 4, 5, 7) else image)


def exif(orientation: int, *, order: str = ">", kind: int = 3, more: Sequence[int] = ()) -> bytes:
    """Return an EXIF block with an orientation tag, without the ``Exif`` prefix.

    Args:
        orientation: the value.
        order: of bytes, as ``struct`` writes it.
        kind: 3 for a short, 4 for a long.
        more: values of further tags of the same number.
    """
    values = [orientation, *more]
    start = b"MM\0*" if order == ">" else b"II*\0"
    layout = {3: "HHIHH", 4: "HHII"}[kind]
    tags = b"".join(
        struct.pack(order + layout, ORIENTATION, kind, 1, value, *([0] if kind == 3 else []))
        for value in values
    )
    return start + struct.pack(order + "IH", 8, len(values)) + tags + bytes(4)


def xmp(orientation: int) -> bytes:
    """Return an XMP packet with an orientation."""
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def segment(marker: int, data: bytes) -> bytes:
    """Return a JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def app1(block: bytes) -> bytes:
    """Return an EXIF segment of a JPEG."""
    return segment(0xE1, b"Exif\0\0" + block)


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Insert segments at the start of a JPEG."""
    assert jpeg.startswith(SOI)
    return SOI + b"".join(segments) + jpeg[2:]


def frame_of(jpeg: bytes) -> int:
    """Return the offset of the frame header marker of a JPEG."""
    return next(at for at, marker in _markers(jpeg) if marker in {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA})


def scan_of(jpeg: bytes) -> int:
    """Return the offset of the entropy-coded data of a JPEG's first scan."""
    at = next(at for at, marker in _markers(jpeg) if marker == 0xDA)
    return at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


def _markers(jpeg: bytes) -> Iterator[tuple[int, int]]:
    at = 2
    while at < len(jpeg) - 4:
        yield at, jpeg[at + 1]
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    """Overwrite bytes at an offset."""
    return data[:at] + new + data[at + len(new) :]


def noised(data: bytes, start: int, end: int, number: int, seed: int) -> bytes:
    """Overwrite some bytes between two offsets at random, without 0xFF, which starts a JPEG marker."""
    rng = np.random.default_rng(seed)
    found = bytearray(data)
    for at in rng.integers(start, end, number):
        found[at] = int(rng.integers(0, 255))
    return bytes(found)


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    """Insert chunks into a PNG before the first chunk of a type."""
    at = png.index(before) - 4
    return png[:at] + b"".join(chunks) + png[at:]


def png(samples: np.ndarray, bits: int, kind: int, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    """Return a PNG of any color type.

    Args:
        samples: integers HWC.
        bits: of each.
        kind: PNG's number: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGBA.
        interlaced: by Adam7.
        extra: chunks before the pixels, such as the palette.
    """
    height, width = samples.shape[:2]
    passes = [samples[y::dy, x::dx] for y, x, dy, dx in _ADAM7] if interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row, bits) for part in passes if part.size for row in part)
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, int(interlaced))
    return (
        PNG_START + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def _packed(row: np.ndarray, bits: int) -> bytes:
    values = row.reshape(-1)
    if bits >= 8:
        return values.astype(">u2" if bits == 16 else "u1").tobytes()
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((values[:, None] >> shifts & 1).astype(np.uint8)).tobytes()


def webp_chunks(webp: bytes) -> list[tuple[bytes, bytes]]:
    """Split a WebP into chunks."""
    at, found = 12, []
    while at < len(webp):
        kind, length = struct.unpack_from("<4sI", webp, at)
        found.append((kind, webp[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def webp(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Build a WebP from chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff(
    pixels: bytes, size: tuple[int, int], tags: dict[int, tuple[int, tuple[int, ...]]], *, order: str = "<"
) -> bytes:
    """Return an uncompressed TIFF with one strip.

    Args:
        pixels: as they lie in the file.
        size: height and width.
        tags: kind (3 short, 4 long) and values, beside those for size and place.
        order: of bytes, as ``struct`` writes it.
    """
    height, width = size
    every = {
        256: (4, (width,)),
        257: (4, (height,)),
        259: (3, (1,)),
        273: (4, (8,)),
        278: (4, (height,)),
        279: (4, (len(pixels),)),
        **tags,
    }
    start = 8 + len(pixels) + len(pixels) % 2
    behind = start + 2 + 12 * len(every) + 4
    entries, values = b"", b""
    for number, (kind, listed) in sorted(every.items()):
        packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(listed), *listed)
        if len(packed) > 4:
            place = struct.pack(order + "I", behind + len(values))
            values += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", number, kind, len(listed)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    padding = bytes(len(pixels) % 2)
    return head + pixels + padding + struct.pack(order + "H", len(every)) + entries + bytes(4) + values
