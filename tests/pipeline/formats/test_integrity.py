"""Integrity checks detect every kind of damage before decoding, without false positives."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from image_bytes import (
    EOI,
    SOI,
    chunk,
    frame_of,
    png,
    replaced,
    saved,
    scan_of,
    segment,
    webp,
    webp_chunks,
    with_chunks,
    with_segments,
)
from jpeg_files import SAMPLINGS, by_opencv
from lightwell.pipeline.formats.integrity import integrity_problem, unsupported_mode
from lightwell.pipeline.formats.jpeg_segments import chroma_subsampling_ratio, uses_interblock_smoothing
from pictures import make_picture

PICTURE = make_picture(1, 40, 56)
SIZE = (40, 56)
JPEG = saved(PICTURE, "JPEG")
PROGRESSIVE = saved(PICTURE, "JPEG", progressive=True)
PNG = png(PICTURE, 8, 2)
WEBP = saved(PICTURE, "WEBP")
WHOLE = {"jpeg": JPEG, "png": PNG, "webp": WEBP}


def problem(name: str, data: bytes, mode: str = "RGB", size: tuple[int, int] = SIZE) -> str:
    return integrity_problem(data, name, mode, size)


@pytest.mark.parametrize("name", WHOLE)
def test_a_complete_file_has_no_problem_with_any_trailing_bytes(name: str) -> None:
    for behind in (b"", b"\n", bytes(5000), WHOLE[name]):
        assert problem(name, WHOLE[name] + behind) == ""


@pytest.mark.parametrize("name", WHOLE)
def test_truncation_at_any_byte_is_detected(name: str) -> None:
    for end in range(len(WHOLE[name])):
        assert problem(name, WHOLE[name][:end]), end


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_without_its_last_byte_is_reported_as_truncated_with_a_hint(name: str) -> None:
    found = problem(name, WHOLE[name][:-1])
    assert found.startswith(f"truncated {name}: ")
    assert found.endswith("; copy the file again or remove it")


@pytest.mark.parametrize("name", WHOLE)
def test_a_size_that_differs_from_the_index_is_detected(name: str) -> None:
    found = problem(name, WHOLE[name], size=(41, 56))
    assert found == "expected 56x41 pixels as indexed, got 56x40; the file changed: index again"


@pytest.mark.parametrize("name", ["jpeg", "png"])
def test_a_mode_that_differs_from_the_index_is_detected(name: str) -> None:
    found = problem(name, WHOLE[name], mode="L")
    assert found == "expected pixels of mode L as indexed, got RGB; the file changed: index again"


@pytest.mark.parametrize("name", WHOLE)
def test_a_format_that_differs_from_the_index_is_detected(name: str) -> None:
    for other in {*WHOLE} - {name}:
        found = problem(name, WHOLE[other])
        assert found == f"expected a {name} as indexed, got another file; the file changed: index again"


def test_formats_that_only_pillow_reads_are_not_checked() -> None:
    assert problem("tiff", b"anything") == ""


def test_every_flipped_bit_of_a_png_is_detected() -> None:
    data = png(make_picture(2, 6, 5), 8, 2)
    for at in range(len(data)):
        for bit in range(8):
            assert problem("png", replaced(data, at, bytes((data[at] ^ 1 << bit,))), size=(6, 5)), (at, bit)


@pytest.mark.parametrize("kind", [b"IHDR", b"tEXt", b"IDAT", b"IEND"])
def test_the_chunk_of_a_png_whose_checksum_differs_is_named(kind: bytes) -> None:
    data = with_chunks(PNG, chunk(b"tEXt", b"a\0b"))
    at = data.index(kind)
    sum_at = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    found = problem("png", replaced(data, sum_at, b"abcd"))
    name = kind.decode()
    assert found.startswith(f"damaged png: its chunk {name} has another checksum than the file says")


def test_a_png_chunk_with_an_excessive_length_is_a_truncation() -> None:
    at = PNG.index(b"IDAT") - 4
    found = problem("png", replaced(PNG, at, b"\x7f\xff\xff\xff"))
    assert found.startswith("truncated png: it ends within its chunk IDAT")


@pytest.mark.parametrize(
    ("bits", "kind", "mode"),
    [(1, 0, "1"), (2, 0, "L"), (4, 0, "L"), (8, 0, "L"), (16, 0, "I;16"), (8, 2, "RGB"), (16, 2, "RGB"), (1, 3, "P"),
     (8, 3, "P"), (8, 4, "LA"), (16, 4, "RGBA"), (8, 6, "RGBA"), (16, 6, "RGBA")],
)  # fmt: skip
def test_the_mode_of_every_png_type_matches_that_of_pillow(bits: int, kind: int, mode: str) -> None:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    data = png(np.zeros((*SIZE, channels), int), bits, kind, extra=chunk(b"PLTE", bytes(6)))
    assert problem("png", data, mode) == ""
    assert problem("png", data, "CMYK") != ""


@pytest.mark.parametrize(
    "fields", [(3, 2, 0, 0, 0), (8, 5, 0, 0, 0), (8, 2, 1, 0, 0), (8, 2, 0, 1, 0), (8, 2, 0, 0, 2)]
)
def test_a_nonstandard_png_is_refused(fields: tuple[int, ...]) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 56, 40, *fields))
    assert problem("png", PNG[:8] + head + PNG[33:]).startswith("expected a png as indexed")


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE], ids=["sequential", "progressive"])
def test_an_end_within_a_comment_is_not_the_end_of_a_jpeg(data: bytes) -> None:
    assert problem("jpeg", with_segments(data, segment(0xFE, EOI * 9))) == ""
    scan = scan_of(data)
    hidden = data[: scan + 20] + segment(0xFE, EOI)  # ends on the bytes of an end that belongs to the comment
    assert problem("jpeg", hidden + b"x").startswith("truncated jpeg")


def test_a_jpeg_followed_by_another_is_parsed_to_its_own_end() -> None:
    header_only = JPEG[: scan_of(JPEG) - 14]
    assert problem("jpeg", header_only).startswith("truncated jpeg")
    assert problem("jpeg", SOI + EOI).startswith("truncated jpeg")


@pytest.mark.parametrize("factor", SAMPLINGS)
def test_chroma_subsampling_ratio_of_common_factors(factor: str) -> None:
    data = by_opencv(PICTURE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[factor])
    assert chroma_subsampling_ratio(data) == {"444": 1, "420": 1, "422": 2, "440": 2, "411": 4}[factor]


def test_chroma_subsampling_ratio_of_gray_and_invalid_data_is_one() -> None:
    assert chroma_subsampling_ratio(saved(PICTURE[..., 0], "JPEG")) == 1
    assert chroma_subsampling_ratio(replaced(JPEG, frame_of(JPEG) + 11, b"\0")) == 1
    for data in (b"", b"\xff\xd8", JPEG[:30], PNG):
        assert chroma_subsampling_ratio(data) == 1


def test_only_a_progressive_jpeg_without_its_last_scans_uses_interblock_smoothing() -> None:
    assert not uses_interblock_smoothing(JPEG)
    assert not uses_interblock_smoothing(PROGRESSIVE)
    scans = [at for at in range(len(PROGRESSIVE) - 1) if PROGRESSIVE[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:6]:
        assert uses_interblock_smoothing(PROGRESSIVE[:at] + EOI)
    for data in (b"", b"\xff\xd8", JPEG[:30], PNG):
        assert not uses_interblock_smoothing(data)


def test_a_truncated_webp_is_reported_with_both_lengths() -> None:
    found = problem("webp", WEBP[:-7])
    assert found.startswith(f"truncated webp: it ends at byte {len(WEBP) - 7:,} of {len(WEBP):,}")


def test_a_webp_with_alpha_may_be_indexed_as_rgb_or_rgba() -> None:
    clear = saved(np.dstack([PICTURE, PICTURE[..., 0]]), "WEBP", lossless=True)
    assert problem("webp", clear, "RGBA") == problem("webp", clear, "RGB") == ""
    assert problem("webp", WEBP, "RGBA").startswith("expected pixels of mode RGBA")
    assert problem("webp", webp([(b"ABCD", bytes(30)), *webp_chunks(WEBP)])).startswith("expected a webp")


def test_unsupported_modes_are_reported_with_a_hint() -> None:
    for mode in ("F", "LAB", "I"):
        assert unsupported_mode("tiff", mode).endswith(f"got Pillow mode {mode}; convert the file")
    assert unsupported_mode("ppm", "I") == ""
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"):
        assert unsupported_mode("tiff", mode) == ""
