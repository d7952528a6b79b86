"""Generated PNGs: orientation metadata, color types and damage."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from image_bytes import (
    ImageFile,
    bad,
    chunk,
    damaged,
    exif,
    good,
    noised,
    png,
    replaced,
    saved,
    turned,
    with_chunks,
    xmp,
)
from pictures import make_picture

PICTURE = make_picture(7, 64, 96)
SIDES = ((1, 1), (1, 96), (64, 1), (2, 3), (7, 9), (33, 31), (65, 97))


def pngs() -> Iterator[ImageFile]:
    """Yield all files."""
    yield from _orientations()
    yield from _kinds()
    yield from _surroundings()
    yield from _cut()
    yield from _changed()


def _narrow(wide: np.ndarray) -> np.ndarray:
    return np.round(wide / 257).astype(np.uint8)


def _orientations() -> Iterator[ImageFile]:
    wide = PICTURE.astype(np.uint16) * 251
    alpha = np.full((64, 96, 1), 99, np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (16, 3)).astype(np.uint8)
    numbers = (PICTURE[..., :1] // 16).astype(np.uint8)
    bases = {
        "rgb": (png(PICTURE, 8, 2), PICTURE),
        "gray": (png(PICTURE[..., :1], 8, 0), PICTURE[..., 0]),
        "rgba": (png(np.dstack([PICTURE, alpha]), 8, 6), PICTURE),
        "palette": (png(numbers, 4, 3, extra=chunk(b"PLTE", palette.tobytes())), palette[numbers[..., 0]]),
        "rgb-16": (png(wide, 16, 2), _narrow(wide)),
        "gray-16": (png(wide[..., :1], 16, 0), _narrow(wide[..., 0])),
    }
    for name, (data, stored) in bases.items():
        for orientation in range(1, 9):
            upright = turned(stored, orientation)
            block = chunk(b"eXIf", exif(orientation))
            yield good(f"png-{name}-exif-{orientation}", "png", with_chunks(data, block), upright)
            if name == "rgb":
                little = chunk(b"eXIf", exif(orientation, order="<"))
                yield good(f"png-exif-little-{orientation}", "png", with_chunks(data, little), upright)
                behind = with_chunks(data, block, before=b"IEND")
                yield good(f"png-exif-behind-pixels-{orientation}", "png", behind, upright)
                twice = with_chunks(data, block, chunk(b"eXIf", exif(9 - orientation)))
                yield good(f"png-two-exif-{orientation}-and-{9 - orientation}", "png", twice, upright)
                packet = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(orientation)
                text = with_chunks(data, chunk(b"iTXt", packet))
                yield good(f"png-xmp-alone-{orientation}", "png", text, stored)
                told = f"\nexif\n{len(exif(1)) + 6:8}\n" + (b"Exif\0\0" + exif(orientation)).hex() + "\n"
                raw = b"Raw profile type exif\0\0" + zlib.compress(told.encode())
                old = with_chunks(data, chunk(b"zTXt", raw))
                yield good(f"png-exif-in-old-text-{orientation}", "png", old, stored)
    broken = with_chunks(bases["rgb"][0], chunk(b"eXIf", b"MM\0*garbage"))
    yield good("png-exif-broken", "png", broken, PICTURE)


def _kinds() -> Iterator[ImageFile]:
    rng = np.random.default_rng(5)
    for interlaced in (False, True):
        way = "-interlaced" if interlaced else ""
        for bits in (1, 2, 4, 8, 16):
            most = 2**bits - 1
            gray = (PICTURE[..., :1].astype(int) * most + 127) // 255
            shown = np.round(gray[..., 0] * (255 / most)).astype(np.uint8)
            made = png(gray, bits, 0, interlaced=interlaced)
            yield good(f"png-gray-{bits}{way}", "png", made, shown)
            key = chunk(b"tRNS", struct.pack(">H", int(gray[5, 5, 0])))
            made = png(gray, bits, 0, interlaced=interlaced, extra=key)
            yield good(f"png-gray-{bits}-transparent{way}", "png", made, shown)
            if bits <= 8:
                palette = rng.integers(0, 256, (2**bits, 3)).astype(np.uint8)
                colors = chunk(b"PLTE", palette.tobytes())
                for what, alpha in (("", b""), ("-transparent", chunk(b"tRNS", b"\0\x80"))):
                    made = png(gray, bits, 3, interlaced=interlaced, extra=colors + alpha)
                    yield good(f"png-palette-{bits}{what}{way}", "png", made, palette[gray[..., 0]])
        for bits in (8, 16):
            color = PICTURE.astype(int) * (1 if bits == 8 else 255)
            alpha = rng.integers(0, 2**bits, (64, 96, 1))
            shown = PICTURE if bits == 8 else _narrow(color)
            key = chunk(b"tRNS", struct.pack(">HHH", *color[3, 4].tolist()))
            for what, kind, samples, extra, expected in (
                ("gray-alpha", 4, np.dstack([color[..., :1], alpha]), b"", shown[..., 0]),
                ("rgb", 2, color, b"", shown),
                ("rgb-transparent", 2, color, key, shown),
                ("rgba", 6, np.dstack([color, alpha]), b"", shown),
            ):
                made = png(samples, bits, kind, interlaced=interlaced, extra=extra)
                yield good(f"png-{what}-{bits}{way}", "png", made, expected)
    for height, width in SIDES:
        picture = make_picture(3, height, width)
        for interlaced in (False, True):
            way = "-interlaced" if interlaced else ""
            made = png(picture, 8, 2, interlaced=interlaced)
            yield good(f"png-{width}x{height}{way}", "png", made, picture)


def _surroundings() -> Iterator[ImageFile]:
    data = png(PICTURE, 8, 2)
    at = data.index(b"IDAT") - 4
    pixels = data[at + 8 : data.index(b"IEND") - 8]
    head, tail = data[:at], data[data.index(b"IEND") - 4 :]
    bytewise = b"".join(chunk(b"IDAT", pixels[i : i + 1]) for i in range(300))
    for what, made in {
        "gamma": with_chunks(data, chunk(b"gAMA", struct.pack(">I", 100_000))),
        "chromaticities": with_chunks(data, chunk(b"cHRM", struct.pack(">8I", *[30_000] * 8))),
        "standard-rgb": with_chunks(data, chunk(b"sRGB", b"\0")),
        "profile-broken": with_chunks(data, chunk(b"iCCP", b"x\0\0" + zlib.compress(b"nothing"))),
        "background": with_chunks(data, chunk(b"bKGD", bytes(6))),
        "resolution": with_chunks(data, chunk(b"pHYs", struct.pack(">IIB", 7, 9, 0))),
        "text": with_chunks(data, chunk(b"tEXt", b"Comment\0" + b"x" * 70_000)),
        "unknown-chunk": with_chunks(data, chunk(b"teSt", bytes(99))),
        "significant-bits": with_chunks(data, chunk(b"sBIT", b"\5\6\5")),
        "300-parts": head + bytewise + chunk(b"IDAT", pixels[300:]) + tail,
        "empty-part": head + chunk(b"IDAT", b"") + chunk(b"IDAT", pixels) + tail,
        "byte-behind-end": data + b"\n",
        "zeros-behind-end": data + bytes(70_000),
        "another-behind-end": data + png(make_picture(9, 8, 8), 8, 2),
    }.items():
        yield good(f"png-{what}", "png", made, PICTURE)
    control = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0))
    second = chunk(b"fcTL", struct.pack(">5I2H2B", 1, 96, 64, 0, 0, 1, 10, 0, 0))
    frame = chunk(b"fdAT", struct.pack(">I", 2) + pixels)
    start = chunk(b"acTL", struct.pack(">II", 2, 0))
    animated = head + start + control + chunk(b"IDAT", pixels) + second + frame + tail
    yield good("png-animated", "png", animated, PICTURE)
    animated = head + chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"IDAT", pixels)
    control = chunk(b"fcTL", struct.pack(">5I2H2B", 0, 96, 64, 0, 0, 1, 10, 0, 0))
    animated += control + chunk(b"fdAT", struct.pack(">I", 1) + pixels) + tail
    yield good("png-animated-behind-its-picture", "png", animated, PICTURE)


def _cut() -> Iterator[ImageFile]:
    for name, data in (
        ("rgb", png(PICTURE, 8, 2)),
        ("interlaced", png(PICTURE, 8, 2, interlaced=True)),
        ("rgba", saved(np.dstack([PICTURE, PICTURE[..., :1]]), "PNG")),
        ("rgb-16", png(PICTURE.astype(int) * 255, 16, 2)),
    ):
        ends = {len(data) - n for n in (1, 4, 5, 8, 12, 13, 40)} | {16, 25, 33, 41, 50}
        ends |= set(np.linspace(60, len(data) - 60, 6).astype(int).tolist())
        for end in sorted(ends):
            yield bad(f"png-{name}-cut-at-{end}", "png", data[:end], "png")


def _changed() -> Iterator[ImageFile]:
    for name, data in (
        ("rgb", png(PICTURE, 8, 2)),
        ("gray-16", png(PICTURE[..., :1].astype(int) * 255, 16, 0)),
        ("rgba", saved(np.dstack([PICTURE, PICTURE[..., :1]]), "PNG")),
    ):
        at = data.index(b"IDAT") + 4
        end = data.index(b"IEND") - 8
        for seed in range(6):
            yield bad(f"png-{name}-noise-{seed}", "png", noised(data, at, end, 1 + seed, seed), "damaged png")
        pixels = zlib.decompress(data[at:end])
        head, tail = data[: at - 8], data[end + 4 :]
        stream = data[at:end]
        for what, content in {
            "half-of-the-rows": zlib.compress(pixels[: len(pixels) // 2]),
            "no-pixels": b"",
            "half-of-the-stream": stream[: len(stream) // 2],
            "wrong-sum-of-the-stream": stream[:-4] + b"abcd",
            "no-stream": b"\0" * 200,
            "unknown-filter": zlib.compress(b"\x09" + pixels[1:]),
            "noise-in-the-stream": noised(stream, 40, len(stream) - 8, 4, 3),
        }.items():
            yield damaged(f"png-{name}-{what}", "png", head + chunk(b"IDAT", content) + tail)
        more = head + chunk(b"IDAT", zlib.compress(pixels + bytes(5000))) + tail
        yield damaged(f"png-{name}-more-rows", "png", more)
        for kind in (b"IHDR", b"IDAT", b"IEND"):
            place = data.index(kind)
            length = int.from_bytes(data[place - 4 : place], "big")
            made = replaced(data, place + 4 + length, b"abcd")
            yield bad(f"png-{name}-sum-of-{kind.decode()}", "png", made, "png")
    data = png(PICTURE, 8, 2)
    for what, size in (("larger", (192, 128)), ("smaller", (48, 32)), ("wider", (104, 64))):
        head = struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
        made = data.replace(data[8:33], chunk(b"IHDR", head))
        yield damaged(f"png-claims-{what}", "png", made)
    for what, fields in {
        "no-width": (0, 64, 8, 2, 0, 0, 0),
        "no-height": (96, 0, 8, 2, 0, 0, 0),
        "3-bits": (96, 64, 3, 2, 0, 0, 0),
        "unknown-colors": (96, 64, 8, 5, 0, 0, 0),
        "rgb-of-4-bits": (96, 64, 4, 2, 0, 0, 0),
        "unknown-compression": (96, 64, 8, 2, 1, 0, 0),
        "unknown-interlacing": (96, 64, 8, 2, 0, 0, 7),
    }.items():
        made = data.replace(data[8:33], chunk(b"IHDR", struct.pack(">IIBBBBB", *fields)))
        yield bad(f"png-{what}", "png", made, "png")
    unsummed = with_chunks(data, replaced(chunk(b"tEXt", b"a\0b"), 11, b"abcd"))
    yield bad("png-sum-of-a-text", "png", unsummed, "png")
    numbers = png(np.full((64, 96, 1), 200), 8, 3, extra=chunk(b"PLTE", bytes(range(30))))
    yield damaged("png-palette-too-short", "png", numbers)
    yield damaged("png-palette-missing", "png", png(np.full((64, 96, 1), 2), 8, 3))
