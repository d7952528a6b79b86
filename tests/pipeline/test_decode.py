"""The colour rule, orientation, fallbacks and isolation of the decoders."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from lightwell.pipeline.decode.chain import DecodeChain, Decoded, Encoded
from lightwell.pipeline.decode.dali import DaliDecoder
from lightwell.pipeline.decode.pillow import decode_opencv, decode_pillow
from lightwell.pipeline.headers import read_header
from pictures import make_picture
from PIL import Image

PICTURE = make_picture(4, 60, 90)


@pytest.fixture(scope="module")
def chain() -> DecodeChain:
    return DecodeChain(DaliDecoder(max_batch_size=8, num_threads=2))


def encode(image: Image.Image, kind: str, tmp_path: Path, **options: object) -> Encoded:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    path = tmp_path / "picture"
    path.write_bytes(buffer.getvalue())
    header = read_header(path)
    assert header.status == "ok"
    return Encoded(buffer.getvalue(), header.format, header.mode, header.orientation)


def decode(chain: DecodeChain, file: Encoded) -> Decoded:
    (decoded,) = chain.decode([file])
    assert decoded.image is not None, decoded.reason
    assert decoded.image.dtype == np.uint8
    return decoded


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back_to_the_last_bit(kind: str, chain: DecodeChain, tmp_path: Path) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(chain, encode(Image.fromarray(PICTURE), kind, tmp_path, **options))
    assert np.array_equal(decoded.image, PICTURE)
    assert decoded.decoders == ("dali",)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_equals_opencv_to_the_last_bit(
    quality: int, subsampling: int, chain: DecodeChain, tmp_path: Path
) -> None:
    file = encode(Image.fromarray(PICTURE), "JPEG", tmp_path, quality=quality, subsampling=subsampling)
    assert np.array_equal(decode(chain, file).image, decode_opencv(file.data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_to_every_format(
    kind: str, orientation: int, chain: DecodeChain, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(Image.fromarray(PICTURE), kind, tmp_path, exif=exif)
    expected = decode_pillow(file.data)
    found = decode(chain, file).image
    assert found is not None
    assert file.orientation == orientation
    assert found.shape == expected.shape == ((90, 60, 3) if orientation > 4 else (60, 90, 3))
    assert np.abs(found.astype(int) - expected).max() <= (4 if kind in ("JPEG", "WEBP") else 0)


def test_gray_is_three_equal_channels(chain: DecodeChain, tmp_path: Path) -> None:
    gray = PICTURE[..., 0]
    found = decode(chain, encode(Image.fromarray(gray), "PNG", tmp_path)).image
    assert np.array_equal(found, np.repeat(gray[..., None], 3, 2))


def test_alpha_is_dropped_and_the_colour_stays(chain: DecodeChain, tmp_path: Path) -> None:
    alpha = np.full((60, 90, 1), 7, np.uint8)
    file = encode(Image.fromarray(np.concatenate([PICTURE, alpha], 2)), "PNG", tmp_path)
    assert np.array_equal(decode(chain, file).image, PICTURE)


def test_palette_becomes_its_colours(chain: DecodeChain, tmp_path: Path) -> None:
    palette = Image.fromarray(PICTURE).quantize(16)
    assert np.array_equal(
        decode(chain, encode(palette, "PNG", tmp_path)).image, np.array(palette.convert("RGB"))
    )


def test_sixteen_bits_are_divided_by_257(chain: DecodeChain, tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    found = decode(chain, encode(Image.fromarray(wide), "PNG", tmp_path)).image
    assert np.array_equal(found, np.repeat(np.round(wide / 257).astype(np.uint8)[..., None], 3, 2))


def test_sixteen_bit_colour_is_divided_by_257(chain: DecodeChain, tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    data = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    found = decode(chain, Encoded(data, "png", "RGB", 1)).image
    assert np.array_equal(found, np.round(wide / 257).astype(np.uint8))


def test_cmyk_follows_the_stated_rule(chain: DecodeChain, tmp_path: Path) -> None:
    inks = np.concatenate([PICTURE, PICTURE[..., :1] // 2], 2)
    file = encode(Image.frombytes("CMYK", (90, 60), inks.tobytes()), "TIFF", tmp_path)
    found = decode(chain, file).image
    assert found is not None
    expected = np.array(Image.frombytes("CMYK", (90, 60), inks.tobytes()).convert("RGB"))
    assert np.array_equal(found, expected)


def test_float_pixels_are_refused_with_the_cure(chain: DecodeChain) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(buffer, "TIFF")
    (decoded,) = chain.decode([Encoded(buffer.getvalue(), "tiff", "F", 1)])
    assert decoded.image is None
    assert "convert the file" in decoded.reason


def test_bad_files_in_a_dali_batch_cost_only_themselves(chain: DecodeChain, tmp_path: Path) -> None:
    good = encode(Image.fromarray(PICTURE), "JPEG", tmp_path)
    bad = Encoded(b"\xff\xd8\xff nothing", "jpeg", "RGB", 1)
    results = chain.decode([good, bad, good, good, bad, good, good, good, good, bad])
    assert [r.image is None for r in results] == [
        False,
        True,
        False,
        False,
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert results[1].decoders == ("dali", "opencv", "pillow")
    assert all(np.array_equal(r.image, results[0].image) for r in results if r.image is not None)


def test_the_gpu_decoder_differs_only_in_one_parameter() -> None:
    """Without a GPU, DALI says that it lacks a driver, and not that the graph is wrong."""
    import torch

    if torch.cuda.is_available():
        decoder = DaliDecoder(max_batch_size=1, num_threads=1, device="gpu")
        assert isinstance(decoder.decode([cv2.imencode(".jpg", PICTURE)[1].tobytes()])[0], np.ndarray)
        return
    with pytest.raises(RuntimeError, match=r"(?i)cuda|driver|gpu|nvml"):
        DaliDecoder(max_batch_size=1, num_threads=1, device="gpu")
