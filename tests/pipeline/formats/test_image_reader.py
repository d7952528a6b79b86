"""The image reader: a fixed list of formats, and limits for headers."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from lightwell.pipeline.formats.image_reader import ALLOWED, MAX_HEADER_BYTES, HeaderLimitError, open_image
from pictures import make_picture
from PIL import Image, UnidentifiedImageError

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    b"%%BeginProlog\n%%EndProlog\n0 0 8 8 rectfill\n%%EOF\n"
)


@pytest.mark.parametrize("kind", ALLOWED)
def test_allowed_formats_open_from_bytes_and_from_files(kind):
    buffer = io.BytesIO()
    Image.fromarray(make_picture(1)).save(buffer, kind)
    for source in (buffer.getvalue(), buffer):
        with open_image(source) as image:
            assert image.size == (160, 120)
            assert np.asarray(image.convert("RGB")).shape == (120, 160, 3)


def test_postscript_is_refused_although_pillow_reads_it():
    with pytest.raises(UnidentifiedImageError), open_image(EPS):
        pass


def test_other_formats_of_pillow_are_refused():
    for kind in ("PCX", "TGA", "ICO", "SGI", "DDS"):
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, kind)
        with pytest.raises(UnidentifiedImageError), open_image(buffer.getvalue()):
            pass


class Counted(io.BytesIO):
    """Counts read bytes."""

    total = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.total += len(data)
        return data


def test_header_reads_stop_at_the_limit():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "AVIF")
    file = Counted(buffer.getvalue() + bytes(MAX_HEADER_BYTES))
    with pytest.raises(HeaderLimitError, match="does not end within"), open_image(file):
        pass
    assert file.total < MAX_HEADER_BYTES + 100_000


def test_millions_of_tiny_chunks_exceed_the_limit_of_reads():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16)).save(buffer, "PNG")
    data = buffer.getvalue()
    chunk = b"\0\0\0\0teSt" + zlib.crc32(b"teSt").to_bytes(4, "big")
    file = io.BytesIO(data[:33] + chunk * 200_000 + data[33:])
    with pytest.raises(HeaderLimitError, match="parts"), open_image(file):
        pass
