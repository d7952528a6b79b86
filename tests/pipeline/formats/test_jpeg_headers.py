"""The fast parser of JPEG headers agrees with Pillow, or returns None."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from image_bytes import app1, exif, noised, replaced, saved, scan_of, segment, with_segments
from jpeg_files import jpegs
from lightwell.pipeline.formats import headers
from lightwell.pipeline.formats.headers import Header, read_header_from
from lightwell.pipeline.formats.jpeg_headers import read_common_jpeg, read_common_orientation
from pictures import make_picture
from PIL import Image

JPEG = saved(make_picture(3, 40, 60), "JPEG")


def by_pillow(data: bytes) -> Header | None:
    """Read a header with Pillow; None if it refuses the file."""
    try:
        return headers._read_with_pillow(io.BytesIO(data))
    except (OSError, SyntaxError, ValueError, struct.error):
        return None


def differing(files: Iterator[tuple[str, bytes]]) -> tuple[dict[str, tuple[object, object]], int]:
    """Return the files on which both parsers disagree, and the number of files that the fast one reads."""
    found, number = {}, 0
    for name, data in files:
        if (quick := headers._common_jpeg_header(io.BytesIO(data))) is not None:
            number += 1
            if quick != (slow := by_pillow(data)):
                found[name] = quick, slow
    return found, number


def test_the_parser_agrees_with_pillow_on_every_generated_jpeg() -> None:
    found, number = differing((file.name, file.data) for file in jpegs())
    assert found == {}
    assert number > 300


def test_the_parser_agrees_with_pillow_on_every_truncated_jpeg() -> None:
    data = with_segments(JPEG, app1(exif(6)), segment(0xFE, bytes(50)))
    found, number = differing((str(end), data[:end]) for end in range(3, scan_of(data) + 50))
    assert found == {}
    assert number > 10


def test_the_parser_agrees_with_pillow_on_any_changed_byte_of_frame_tables_and_exif() -> None:
    """Without application segments: Pillow refuses some of these for values that no decoder needs."""
    data = with_segments(JPEG, app1(exif(6, order="<")))
    behind = len(app1(exif(6))) + 2 + 18  # the segment of JFIF
    places = [*range(12, behind - 18), *range(behind, scan_of(data))]
    rng = np.random.default_rng(0)
    cases = (
        (f"{at} {value}", replaced(data, at, bytes((value,))))
        for at in places
        for value in rng.integers(0, 256, 12)
    )
    found, number = differing(cases)
    assert found == {}
    assert number > 1000


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", [3, 4])
@pytest.mark.parametrize("orientation", [1, 2, 6, 8])
def test_the_orientation_of_an_exif_block_is_that_of_pillow_or_none(
    orientation: int, kind: int, order: str
) -> None:
    for block in (
        exif(orientation, order=order, kind=kind),
        b"Exif\0\0" + exif(orientation, order=order, kind=kind),
    ):
        slow = Image.Exif()
        slow.load(block)
        assert slow[274] == orientation
        assert read_common_orientation(block) in (orientation, None)
        assert read_common_orientation(block) is not None or kind == 4


def test_noise_in_exif_gives_the_orientation_of_pillow() -> None:
    block = exif(6) + bytes(60)
    for seed in range(2000):
        made = noised(block, 0, 30, 1 + seed % 3, seed)
        if (quick := read_common_orientation(made)) is not None:
            slow = Image.Exif()
            try:
                slow.load(made)
                expected = slow.get(274)
            except (SyntaxError, UserWarning, ValueError, struct.error):
                expected = None
            in_range = isinstance(expected, int) and 1 <= expected <= 8
            assert (quick if 1 <= quick <= 8 else 1) == (expected if in_range else 1), seed


def test_uncommon_files_are_left_to_pillow() -> None:
    large = with_segments(JPEG, *[segment(0xE2, bytes(60_000))] * 12)
    for data in (b"", b"\xff\xd8", JPEG[:20], large, with_segments(JPEG, app1(exif(1)), app1(exif(2)))):
        assert read_common_jpeg(io.BytesIO(data)) is None
    assert read_header_from(io.BytesIO(large)).status == "ok"
