"""Encoder and camera are read from the bytes of a file, and hostile metadata gives nulls."""

from __future__ import annotations

import io
import struct
import time
import zlib
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.pipeline.statistics.file_measures import FILE_SCHEMA, file_measures
from PIL import Image, ImageCms

TRACES = [
    name
    for name in FILE_SCHEMA.names
    if name not in ("content_hash", "bytes_per_pixel", "has_several_frames")
]
PICTURE = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def save(format: str, **options: Any) -> bytes:
    """Save the picture with Pillow."""
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, format.upper(), **options)
    return file.getvalue()


def measure(data: bytes, format: str = "jpeg") -> dict[str, Any]:
    """Measure a file of the picture and check that the schema holds it."""
    measures = file_measures(data, format, 24, 16)
    assert pa.Table.from_pylist([measures], FILE_SCHEMA).num_rows == 1
    return measures


def camera_exif() -> Image.Exif:
    """Make the tags of a camera."""
    exif = Image.Exif()
    exif[271], exif[272], exif[305], exif[274] = "Maker", "Model 5", "Editor 1.0", 6
    exif[306] = "2020:01:02 03:04:05"
    exif.get_ifd(0x8769)[36867] = "2019:01:02 03:04:05"
    return exif


@pytest.mark.parametrize("encoder", ["opencv", "pillow", "pillow gray"])
def test_the_quality_of_every_ijg_setting_is_exact(encoder: str) -> None:
    def encode(quality: int) -> bytes:
        if encoder == "opencv":
            return cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if encoder == "pillow":
            return save("jpeg", quality=quality)
        file = io.BytesIO()
        Image.fromarray(PICTURE[..., 0]).save(file, "JPEG", quality=quality)
        return file.getvalue()

    assert [measure(encode(quality))["jpeg_quality"] for quality in range(1, 101)] == list(range(1, 101))


def test_foreign_tables_give_the_nearest_setting() -> None:
    tables = Image.open(io.BytesIO(save("jpeg", quality=80))).quantization
    changed = {number: [min(255, value + number) for value in table] for number, table in tables.items()}
    assert measure(save("jpeg", qtables=changed))["jpeg_quality"] in (79, 80)


@pytest.mark.parametrize(("setting", "name"), [(0, "4:4:4"), (1, "4:2:2"), (2, "4:2:0")])
def test_chroma_subsampling_and_progressive_are_read(setting: int, name: str) -> None:
    for progressive in (False, True):
        found = measure(save("jpeg", subsampling=setting, progressive=progressive))
        assert (found["chroma_subsampling"], found["progressive"]) == (name, progressive)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "tiff"])
def test_camera_software_date_orientation_and_profile_are_read(format: str) -> None:
    found = measure(save(format, exif=camera_exif(), icc_profile=SRGB.tobytes()), format)
    assert found["exif_camera"] == "Maker Model 5"
    assert found["exif_software"] == "Editor 1.0"
    assert found["exif_date"] == ("2020:01:02 03:04:05" if format == "tiff" else "2019:01:02 03:04:05")
    assert found["exif_orientation"] == 6
    assert found["icc_profile"] == ImageCms.getProfileDescription(SRGB).strip()


def test_the_maker_is_not_said_twice() -> None:
    exif = Image.Exif()
    exif[271], exif[272] = "Canon", "Canon EOS\0 hidden"
    assert measure(save("jpeg", exif=exif))["exif_camera"] == "Canon EOS"


def test_control_characters_do_not_reach_the_records() -> None:
    exif = Image.Exif()
    exif[272], exif[306] = "\x1b[31mredXXX\r\nModel", "yesterday"
    found = measure(save("jpeg", exif=exif).replace(b"XXX", "\u202e".encode()))
    assert found["exif_camera"] == "[31mred Model"
    assert found["exif_date"] is None


def test_files_without_traces_have_nulls() -> None:
    for format in ("png", "bmp", "gif", "ppm"):
        found = measure(save(format), format)
        assert [found[name] for name in TRACES] == [None] * len(TRACES)
    assert file_measures(b"", "jpeg", 0, 0)["bytes_per_pixel"] is None


@pytest.mark.parametrize("format", ["gif", "png", "webp", "tiff"])
def test_animations_and_pages_are_told_from_single_frames(format: str) -> None:
    others = [Image.fromarray(PICTURE[::-1]), Image.fromarray(PICTURE // 2)]
    assert measure(save(format), format)["has_several_frames"] is False
    data = save(format, save_all=True, append_images=others)
    assert measure(data, format)["has_several_frames"] is True
    assert measure(data[:30], format)["has_several_frames"] in (None, True)
    assert measure(save("jpeg"))["has_several_frames"] is False


def test_the_hash_tells_files_apart_and_density_is_in_bytes() -> None:
    data = save("png")
    assert measure(data, "png") == measure(data, "png")
    assert measure(data, "png")["content_hash"] != measure(data + b"\0", "png")["content_hash"]
    assert measure(data, "png")["bytes_per_pixel"] == len(data) / (16 * 24)


SAMPLES = [
    (format, save(format, exif=camera_exif(), icc_profile=SRGB.tobytes()))
    for format in ("jpeg", "png", "webp", "tiff")
]


@settings(max_examples=150, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), max_size=8),
    end=st.none() | st.integers(0, 1000),
    junk=st.binary(max_size=40),
)
def test_damaged_files_never_raise(
    sample: tuple[str, bytes], changes: list[tuple[int, int]], end: int | None, junk: bytes
) -> None:
    format, data = sample[0], bytearray(sample[1])
    for at, value in changes:
        data[at % len(data)] = value
    damaged = bytes(data[:end]) + junk
    measure(damaged, format)
    for other in ("jpeg", "png", "webp", "tiff"):
        measure(junk, other)


@lru_cache(1)
def hostile_files() -> dict[str, tuple[str, bytes]]:
    """Make files whose metadata would take long or much memory if it were read to its end."""
    bomb = zlib.compress(bytes(1 << 25))
    chunk = struct.pack(">I", len(bomb) + 3) + b"iCCPn\0\0" + bomb + b"\0\0\0\0"
    entries = struct.pack("<HHII", 272, 2, 1 << 31, 8) * 65535
    block = b"II*\0" + struct.pack("<IH", 8, 65535) + entries
    return {
        "fill bytes": ("jpeg", b"\xff\xd8" + b"\xff" * (1 << 22)),
        "empty segments": ("jpeg", b"\xff\xd8" + b"\xff\xe0\0\2" * (1 << 20)),
        "empty chunks": ("png", b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0junk\0\0\0\0" * (1 << 18)),
        "profile bomb": ("png", b"\x89PNG\r\n\x1a\n" + chunk),
        "endless directory": ("tiff", block),
        "directory in itself": ("tiff", b"II*\0" + struct.pack("<IHHHII", 8, 1, 34665, 4, 1, 8)),
        "empty webp chunks": ("webp", b"RIFF\0\0\0\0WEBP" + b"junk\0\0\0\0" * (1 << 18)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "fill bytes",
        "empty segments",
        "empty chunks",
        "profile bomb",
        "endless directory",
        "directory in itself",
        "empty webp chunks",
    ],
)
def test_hostile_metadata_takes_bounded_work(name: str) -> None:
    format, data = hostile_files()[name]
    started = time.thread_time()
    found = measure(data, format)
    assert time.thread_time() - started < 2
    assert [found[trace] for trace in TRACES if trace != "exif_camera"] == [None] * (len(TRACES) - 1)
