"""Generates several hundred deterministic image files with their expected results.

JPEG and PNG have modules of their own; the other formats, wrong names and what is no image are here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile
from image_bytes import (
    ImageFile,
    bad,
    damaged,
    exif,
    good,
    noised,
    png,
    saved,
    tiff,
    turned,
    webp,
    webp_chunks,
    xmp,
)
from jpeg_files import jpegs
from pictures import make_picture
from PIL import Image
from png_files import pngs

PICTURE = make_picture(7, 64, 96)
MEAN_ERROR = 6.0
SIDES = ((1, 1), (1, 96), (64, 1), (7, 9), (33, 31))


def all_files() -> list[ImageFile]:
    """Return all files; names are unique."""
    makers = (jpegs, pngs, _webps, _tiffs, _others, _misnamed, _no_images)
    files = [file for maker in makers for file in maker()]
    assert len({file.name for file in files}) == len(files)
    return files


def write_files(folder: Path, files: list[ImageFile]) -> None:
    """Write the files into a new folder."""
    folder.mkdir()
    for file in files:
        (folder / file.name).write_bytes(file.data)


def _webps() -> Iterator[ImageFile]:
    alpha = np.full((64, 96, 1), 99, np.uint8)
    lossless = saved(PICTURE, "WEBP", lossless=True, exif=b"Exif\0\0" + exif(1))
    lossy = saved(PICTURE, "WEBP", quality=90, exif=b"Exif\0\0" + exif(1))
    clear = saved(np.dstack([PICTURE, alpha]), "WEBP", lossless=True, exif=b"Exif\0\0" + exif(1))
    for name, data, error in (
        ("lossless", lossless, 0.0),
        ("lossy", lossy, MEAN_ERROR),
        ("alpha", clear, 0.0),
    ):
        chunks = [(kind, part) for kind, part in webp_chunks(data) if kind != b"EXIF"]
        for orientation in range(1, 9):
            upright = turned(PICTURE, orientation)
            block, other = exif(orientation), exif(9 - orientation)
            made = webp([*chunks, (b"EXIF", b"Exif\0\0" + block)])
            yield good(f"webp-{name}-exif-{orientation}", "webp", made, upright, error)
            if name == "lossless":
                bare = webp([*chunks, (b"EXIF", block)])
                yield good(f"webp-exif-without-name-{orientation}", "webp", bare, upright)
                twice = webp([*chunks, (b"EXIF", block), (b"EXIF", other)])
                yield good(f"webp-two-exif-{orientation}-and-{9 - orientation}", "webp", twice, upright)
        packet = saved(PICTURE, "WEBP", lossless=True, xmp=xmp(6))
        yield good(f"webp-{name}-xmp-alone", "webp", packet, PICTURE)
    for height, width in SIDES:
        picture = make_picture(3, height, width)
        data = saved(picture, "WEBP", lossless=True)
        yield good(f"webp-{width}x{height}", "webp", data, picture)
        yield good(f"webp-lossy-{width}x{height}", "webp", saved(picture, "WEBP"), picture, 60.0)
    frames = [Image.fromarray(PICTURE), Image.fromarray(make_picture(8, 64, 96))]
    animated = saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])
    yield good("webp-animated", "webp", animated, PICTURE)
    plain, small = saved(PICTURE, "WEBP", lossless=True), saved(PICTURE, "WEBP", quality=90)
    yield good("webp-bytes-behind-end", "webp", plain + b"\n" * 9, PICTURE)
    for name, data in (("lossless", plain), ("lossy", small), ("alpha", clear)):
        for end in np.linspace(13, len(data) - 1, 8).astype(int).tolist():
            yield bad(f"webp-{name}-cut-at-{end}", "webp", data[:end], "webp")
            whole = data[:4] + struct.pack("<I", end - 8) + data[8:end]
            yield damaged(f"webp-{name}-cut-at-{end}-and-so-told", "webp", whole)
        start = data.index(b"VP8L" if b"VP8L" in data else b"VP8 ") + 18
        for seed in range(6):
            made = noised(data, start, len(data), 1 + 3 * seed, seed)
            yield damaged(f"webp-{name}-noise-{seed}", "webp", made)


def _tiffs() -> Iterator[ImageFile]:
    for name, options in (
        ("raw", {}),
        ("lzw", {"compression": "tiff_lzw"}),
        ("deflate", {"compression": "tiff_adobe_deflate"}),
        ("packbits", {"compression": "packbits"}),
    ):
        for orientation in range(1, 9):
            made = saved(PICTURE, "TIFF", tiffinfo={274: orientation}, **options)
            yield good(f"tiff-{name}-tag-{orientation}", "tiff", made, turned(PICTURE, orientation))
    kinds = {
        "gray": (PICTURE[..., :1], (8,), 1, "<"),
        "rgb-big-endian": (PICTURE, (8, 8, 8), 2, ">"),
        "rgb-16-little": ((PICTURE * 251.0).astype("<u2"), (16, 16, 16), 2, "<"),
        "rgb-16-big": ((PICTURE * 251.0).astype(">u2"), (16, 16, 16), 2, ">"),
        "gray-16-little": ((PICTURE[..., :1] * 251.0).astype("<u2"), (16,), 1, "<"),
        "gray-16-big": ((PICTURE[..., :1] * 251.0).astype(">u2"), (16,), 1, ">"),
    }
    for name, (samples, bits, photometric, order) in kinds.items():
        shown = np.round(samples / 257).astype(np.uint8) if bits[0] == 16 else samples
        for orientation in range(1, 9):
            tags = {258: (3, bits), 262: (3, (photometric,)), 277: (3, (len(bits),))}
            tags[274] = 3, (orientation,)
            made = tiff(samples.tobytes(), (64, 96), tags, order=order)
            upright = turned(shown, orientation)
            yield good(
                f"tiff-{name}-tag-{orientation}", "tiff", made, upright[..., 0] if len(bits) == 1 else upright
            )
    for orientation in (3, 6):
        made = saved(PICTURE, "TIFF", tiffinfo={700: xmp(orientation)})
        yield good(f"tiff-xmp-alone-{orientation}", "tiff", made, PICTURE)
    image = Image.fromarray(PICTURE)
    palette = image.quantize(16)
    inks = np.dstack([255 - PICTURE, np.zeros((64, 96), np.uint8)])
    alpha = np.dstack([PICTURE, np.full((64, 96), 99, np.uint8)])
    white = PICTURE[..., 1] > 127
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PICTURE, bigtiff=True, photometric="rgb")
    tiled = io.BytesIO()
    tifffile.imwrite(tiled, PICTURE, tile=(16, 32), photometric="rgb")
    planes = io.BytesIO()
    tifffile.imwrite(planes, np.moveaxis(PICTURE, 2, 0), planarconfig="separate", photometric="rgb")
    pages = [image, Image.fromarray(make_picture(8, 20, 30))]
    for what, made, upright in (
        ("palette", saved(palette, "TIFF"), np.array(palette.convert("RGB"))),
        ("cmyk", saved(Image.fromarray(inks, "CMYK"), "TIFF"), PICTURE),
        ("rgba", saved(alpha, "TIFF"), PICTURE),
        ("1-bit", saved(Image.fromarray(white), "TIFF"), white.astype(np.uint8) * 255),
        (
            "1-bit-fax",
            saved(Image.fromarray(white), "TIFF", compression="group4"),
            white.astype(np.uint8) * 255,
        ),
        ("big", buffer.getvalue(), PICTURE),
        ("tiled", tiled.getvalue(), PICTURE),
        ("planes", planes.getvalue(), PICTURE),
        ("pages", saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]), PICTURE),
    ):
        yield good(f"tiff-{what}", "tiff", made, upright)
    jpeg = saved(PICTURE, "TIFF", compression="jpeg")
    yield good("tiff-jpeg", "tiff", jpeg, PICTURE, MEAN_ERROR)
    for height, width in SIDES:
        picture = make_picture(3, height, width)
        yield good(f"tiff-{width}x{height}", "tiff", saved(picture, "TIFF"), picture)
    for mode, dtype in (("float", np.float32), ("32-bit", np.int32)):
        made = saved(np.zeros((64, 96), dtype), "TIFF")
        yield bad(f"tiff-{mode}", "tiff", made, "convert the file")
    lab = {258: (3, (8, 8, 8)), 262: (3, (8,)), 277: (3, (3,))}
    yield bad("tiff-lab", "tiff", tiff(PICTURE.tobytes(), (64, 96), lab), "convert the file")
    for name, data in (("raw", tiled.getvalue()), ("lzw", saved(PICTURE, "TIFF", compression="tiff_lzw"))):
        for end in np.linspace(9, len(data) - 9, 8).astype(int).tolist():
            yield bad(f"tiff-{name}-cut-at-{end}", "tiff", data[:end], "")
        for seed in range(4):
            yield damaged(f"tiff-{name}-noise-{seed}", "tiff", noised(data, 8, len(data), 5, seed))


def _others() -> Iterator[ImageFile]:
    image = Image.fromarray(PICTURE)
    palette = image.quantize(16)
    colors = np.array(palette.convert("RGB"))
    gray = image.getchannel(1)
    white = gray.point(lambda value: 255 * (value > 127), "1")
    top_down = bytearray(saved(PICTURE, "BMP"))
    struct.pack_into("<i", top_down, 22, -64)
    wide = (np.asarray(gray) * 251.0).astype(">u2")
    frames = [palette, Image.fromarray(make_picture(8, 64, 96)).quantize(8)]
    for what, suffix, made, upright, error in (
        ("bmp-rgb", "bmp", saved(image, "BMP"), PICTURE, 0),
        ("bmp-gray", "bmp", saved(gray, "BMP"), np.asarray(gray), 0),
        ("bmp-palette", "bmp", saved(palette, "BMP"), colors, 0),
        ("bmp-1-bit", "bmp", saved(white, "BMP"), np.asarray(white).astype(np.uint8) * 255, 0),
        ("bmp-top-down", "bmp", bytes(top_down), PICTURE[::-1], 0),
        ("gif", "gif", saved(palette, "GIF"), colors, 0),
        ("gif-interlaced", "gif", saved(palette, "GIF", interlace=1), colors, 0),
        ("gif-transparent", "gif", saved(palette, "GIF", transparency=3), colors, 0),
        ("gif-animated", "gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), colors, 0),
        ("ppm", "ppm", saved(image, "PPM"), PICTURE, 0),
        ("ppm-text", "ppm", b"P3 96 64 255\n" + " ".join(map(str, PICTURE.ravel())).encode(), PICTURE, 0),
        ("pgm", "pgm", saved(gray, "PPM"), np.asarray(gray), 0),
        ("pgm-16", "pgm", b"P5 96 64 65535\n" + wide.tobytes(), np.round(wide / 257).astype(np.uint8), 0),
        ("pbm", "pbm", saved(white, "PPM"), np.asarray(white).astype(np.uint8) * 255, 0),
        ("jpeg2000", "jp2", saved(image, "JPEG2000"), PICTURE, 0),
        ("jpeg2000-gray", "jp2", saved(gray, "JPEG2000"), np.asarray(gray), 0),
        ("jpeg2000-lossy", "jp2", saved(image, "JPEG2000", irreversible=True), PICTURE, MEAN_ERROR),
        ("avif", "avif", saved(image, "AVIF", quality=90), PICTURE, MEAN_ERROR),
    ):
        yield good(what, suffix, made, upright, error)
    for orientation in range(1, 9):
        made = saved(image, "AVIF", quality=90, exif=b"Exif\0\0" + exif(orientation))
        yield good(f"avif-exif-{orientation}", "avif", made, turned(PICTURE, orientation), MEAN_ERROR)
    for kind in ("BMP", "GIF", "PPM", "AVIF", "JPEG2000"):
        data = saved(palette if kind == "GIF" else image, kind)
        for end in np.linspace(3, len(data) - len(data) // 8, 6).astype(int).tolist():
            yield bad(f"{kind.lower()}-cut-at-{end}", kind.lower(), data[:end], "")
        for seed in range(3):
            made = noised(data, len(data) // 2, len(data), 3, seed)
            yield damaged(f"{kind.lower()}-noise-{seed}", kind.lower(), made)


def _misnamed() -> Iterator[ImageFile]:
    files = {
        kind: saved(PICTURE, kind, **({"lossless": True} if kind == "WEBP" else {}))
        for kind in ("PNG", "WEBP", "TIFF", "BMP", "PPM")
    }
    for kind, data in files.items():
        for suffix in ("jpg", "png", "tif", "webp", "gif"):
            yield good(f"{kind.lower()}-named-{suffix}", suffix, data, PICTURE)
    for suffix in ("png", "tif", "webp", "bmp"):
        yield good(f"jpeg-named-{suffix}", suffix, saved(PICTURE, "JPEG"), PICTURE, MEAN_ERROR)


def _no_images() -> Iterator[ImageFile]:
    image = Image.fromarray(PICTURE)
    for kind in ("ICO", "TGA", "PCX", "SGI", "DDS"):
        yield bad(f"no-image-{kind.lower()}", "jpg", saved(image, kind), "not a known image format")
    for what, data in {
        "text": b"this is text\n" * 50,
        "pdf": b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
        "photoshop": b"8BPS\0\1" + bytes(6) + b"\0\3" + bytes(100),
        "zeros": bytes(5000),
        "html": b"<!DOCTYPE html><html></html>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
    }.items():
        yield bad(f"no-image-{what}", "jpg", data, "not a known image format")
    yield bad("empty", "jpg", b"", "empty file")
    done, coded = cv2.imencode(".hdr", PICTURE.astype(np.float32))
    assert done
    yield bad("no-image-hdr", "jpg", coded.tobytes(), "not a known image format")
    half = png(PICTURE, 8, 2)
    yield bad("png-in-two-halves", "png", half[len(half) // 2 :] + half[: len(half) // 2], "not a known")
