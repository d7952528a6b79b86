"""Image headers are read without decoding, and bad files never raise."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import pytest
from lightwell.pipeline.formats.headers import MAX_PIXELS, read_header
from PIL import Image


def _exif(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("name", "mode", "channels"),
    [
        ("jpeg", "RGB", 3), ("jpeg", "L", 1), ("jpeg", "CMYK", 4), ("png", "RGBA", 4), ("png", "P", 1),
        ("png", "LA", 2), ("png", "1", 1), ("png", "I;16", 1), ("bmp", "RGB", 3), ("tiff", "CMYK", 4),
        ("webp", "RGB", 3),
    ],
)  # fmt: skip
def test_size_mode_and_format_are_read_regardless_of_the_file_name(tmp_path, name, mode, channels):
    path = tmp_path / "picture.txt"
    Image.new(mode, (31, 17)).save(path, format=name)
    header = read_header(path)
    assert (header.width, header.height, header.channels, header.mode) == (31, 17, channels, mode)
    assert (header.format, header.orientation, header.status) == (name, 1, "ok")


@pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read_and_the_size_is_the_stored_one(tmp_path, name, orientation):
    path = tmp_path / "x"
    Image.new("RGB", (20, 10)).save(path, format=name, exif=_exif(orientation))
    header = read_header(path)
    assert (header.orientation, header.width, header.height) == (orientation, 20, 10)


def test_orientation_of_a_png_is_found_after_the_pixels(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (20, 10)).save(path)
    whole = path.read_bytes()
    end = whole.rindex(b"IEND") - 4
    tiff = _exif(6).tobytes().removeprefix(b"Exif\0\0")
    path.write_bytes(whole[:end] + _chunk(b"eXIf", tiff) + whole[end:])
    assert read_header(path).orientation == 6


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_an_invalid_orientation_is_ignored(tmp_path, orientation):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=_exif(orientation))
    assert (read_header(path).orientation, read_header(path).status) == (1, "ok")


def test_an_image_with_broken_exif_is_usable(tmp_path):
    path = tmp_path / "x.jpg"
    Image.new("RGB", (20, 10)).save(path, exif=b"Exif\0\0II*\0garbage")
    assert (read_header(path).orientation, read_header(path).status) == (1, "ok")


def test_pixels_are_not_decoded(tmp_path):
    path = tmp_path / "x.png"
    Image.new("RGB", (640, 480)).save(path)
    whole = path.read_bytes()
    start = whole.index(b"IDAT") + 4
    path.write_bytes(whole[:start] + b"\xff" * 64)
    assert (read_header(path).width, read_header(path).status) == (640, "ok")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", "empty file"),
        (b"\xff\xd8\xff\xe0", "broken jpeg"),
        (b"\x89PNG\r\n\x1a\n\0\0", "broken png"),
        (b"BM", "broken bmp"),
        (b"II*\0", "broken tiff"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "broken webp"),
        (b"hello, this is text\n", "not a known image format"),
        (bytes(100), "not a known image format"),
    ],
)
def test_bad_content_gets_a_one_line_status(tmp_path, content, status):
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    header = read_header(path)
    assert header.status.startswith(status)
    assert "\n" not in header.status
    assert header.width == 0


@pytest.mark.parametrize(
    ("kind", "name"), [("GIF", "gif"), ("PPM", "ppm"), ("AVIF", "avif"), ("JPEG2000", "jpeg2000")]
)
def test_formats_that_only_pillow_reads_are_indexed(tmp_path, kind, name):
    Image.new("RGB", (31, 17)).save(tmp_path / "x.dat", format=kind)
    header = read_header(tmp_path / "x.dat")
    assert (header.format, header.width, header.height, header.status) == (name, 31, 17, "ok")


def test_the_first_of_several_frames_is_used(tmp_path):
    pages = [Image.new("RGB", (12, 8)), Image.new("L", (40, 30))]
    pages[0].save(tmp_path / "x.tiff", save_all=True, append_images=pages[1:])
    header = read_header(tmp_path / "x.tiff")
    assert (header.width, header.height, header.mode, header.status) == (12, 8, "RGB", "ok")


@pytest.mark.parametrize("side", [14_000, 40_000])
def test_decompression_bombs_get_a_status_and_large_images_stay_usable(tmp_path, side):
    path = tmp_path / "x.png"
    ihdr = struct.pack(">IIBBBBB", side, side if side > 14_000 else 10_000, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", ihdr) + _chunk(b"IDAT", zlib.compress(b"")))
    status = read_header(path).status
    assert status == ("ok" if side == 14_000 else f"too large: more than {MAX_PIXELS:,} pixels")


def test_a_path_that_cannot_be_opened_gets_a_status(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name in ("missing.jpg", "pipe.jpg", "loop.jpg", "zero\0byte.jpg", ""):
        assert read_header(f"{tmp_path}/{name}").status.startswith("cannot be opened: "), name


def test_an_unreadable_file_gets_a_status(tmp_path):
    path = tmp_path / "x.png"
    Image.new("L", (2, 2)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert read_header(path).status == "cannot be opened: Permission denied"


def test_every_truncation_of_every_format_gets_a_header(tmp_path):
    for name in ("jpeg", "png", "bmp", "tiff", "webp"):
        path = tmp_path / name
        Image.effect_noise((16, 16), 50).convert("RGB").save(path, format=name, exif=_exif(3))
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            assert read_header(path).status


def test_only_chunk_headers_of_a_webp_are_read_regardless_of_its_size(tmp_path):
    path = tmp_path / "x.webp"
    Image.new("RGB", (20, 10)).save(path, exif=_exif(6))
    whole = path.read_bytes()
    exif = whole.index(b"EXIF")
    sparse = 1 << 30
    with path.open(
        "wb"
    ) as file:  # a gigabyte of zeros in a chunk of its own, which takes no room on the disk
        file.write(whole[:exif] + b"JUNK" + struct.pack("<I", sparse))
        file.seek(sparse, os.SEEK_CUR)
        file.write(whole[exif:])
    tracemalloc.start()
    header = read_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (header.width, header.height, header.orientation, header.status) == (20, 10, 6, "ok")
    assert peak < 1 << 20
