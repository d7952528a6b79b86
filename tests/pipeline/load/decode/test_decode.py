"""Color conversion, orientation, fallbacks and isolation of the decoders."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from lightwell.pipeline.formats.headers import read_header
from lightwell.pipeline.geometry import Region
from lightwell.pipeline.load.decode.dali import DaliDecoder, DaliFailure, DaliInput
from lightwell.pipeline.load.decode.decoder import DecodedImage, EncodedImage, ImageDecoder
from lightwell.pipeline.load.decode.opencv import decode_opencv
from lightwell.pipeline.load.decode.pillow import decode_pillow
from lightwell.pipeline.load.decode.plan import DecodePlan, Resampling, full_region
from pictures import make_picture
from PIL import Image, ImageOps

PICTURE = make_picture(4, 60, 90)


@pytest.fixture(scope="module")
def chain() -> ImageDecoder:
    return ImageDecoder(DaliDecoder(max_batch_size=8, num_threads=2))


def encode(image: Image.Image, kind: str, tmp_path: Path, **options: object) -> EncodedImage:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    path = tmp_path / "picture"
    path.write_bytes(buffer.getvalue())
    header = read_header(path)
    assert header.status == "ok"
    turned = header.orientation > 4
    size = (header.width, header.height) if turned else (header.height, header.width)
    return EncodedImage(buffer.getvalue(), header.format, header.mode, header.orientation, size)


def decode_all(chain: ImageDecoder, files: list[EncodedImage]) -> list[DecodedImage]:
    return chain.decode(files, [DecodePlan("full", full_region(file.size), ()) for file in files])


def decode(chain: ImageDecoder, file: EncodedImage) -> DecodedImage:
    (decoded,) = decode_all(chain, [file])
    assert decoded.image is not None, decoded.reason
    assert decoded.image.dtype == np.uint8
    return decoded


@pytest.mark.parametrize(
    ("kind", "decoder"),
    [("PNG", "dali"), ("WEBP", "dali"), ("BMP", "pillow"), ("TIFF", "pillow"), ("PPM", "pillow")],
)
def test_lossless_formats_are_bit_identical(
    kind: str, decoder: str, chain: ImageDecoder, tmp_path: Path
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(chain, encode(Image.fromarray(PICTURE), kind, tmp_path, **options))
    assert np.array_equal(decoded.image, PICTURE)
    assert decoded.decoders == (decoder,)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_is_bit_identical_to_opencv(
    quality: int, subsampling: int, chain: ImageDecoder, tmp_path: Path
) -> None:
    file = encode(Image.fromarray(PICTURE), "JPEG", tmp_path, quality=quality, subsampling=subsampling)
    assert np.array_equal(decode(chain, file).image, decode_opencv(file.data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_to_every_format(
    kind: str, orientation: int, chain: ImageDecoder, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(Image.fromarray(PICTURE), kind, tmp_path, exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(file.data))).convert("RGB"))
    found = decode(chain, file).image
    assert found is not None
    assert file.orientation == orientation
    assert found.shape == expected.shape == ((90, 60, 3) if orientation > 4 else (60, 90, 3))
    assert np.abs(found.astype(int) - expected).max() == 0


def test_gray_is_three_equal_channels(chain: ImageDecoder, tmp_path: Path) -> None:
    gray = PICTURE[..., 0]
    found = decode(chain, encode(Image.fromarray(gray), "PNG", tmp_path)).image
    assert np.array_equal(found, np.repeat(gray[..., None], 3, 2))


def test_alpha_is_dropped_and_the_colour_stays(chain: ImageDecoder, tmp_path: Path) -> None:
    alpha = np.full((60, 90, 1), 7, np.uint8)
    file = encode(Image.fromarray(np.concatenate([PICTURE, alpha], 2)), "PNG", tmp_path)
    assert np.array_equal(decode(chain, file).image, PICTURE)


def test_palette_becomes_its_colours(chain: ImageDecoder, tmp_path: Path) -> None:
    palette = Image.fromarray(PICTURE).quantize(16)
    assert np.array_equal(
        decode(chain, encode(palette, "PNG", tmp_path)).image, np.array(palette.convert("RGB"))
    )


def test_sixteen_bits_are_divided_by_257(chain: ImageDecoder, tmp_path: Path) -> None:
    wide = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    found = decode(chain, encode(Image.fromarray(wide), "PNG", tmp_path)).image
    assert np.array_equal(found, np.repeat(np.round(wide / 257).astype(np.uint8)[..., None], 3, 2))


def test_sixteen_bit_colour_is_divided_by_257(chain: ImageDecoder, tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (30, 40, 3)).astype(np.uint16)
    data = cv2.imencode(".png", wide[..., ::-1])[1].tobytes()
    found = decode(chain, EncodedImage(data, "png", "RGB", 1, (30, 40))).image
    assert np.array_equal(found, np.round(wide / 257).astype(np.uint8))


def test_cmyk_is_converted_by_the_documented_rule(chain: ImageDecoder, tmp_path: Path) -> None:
    inks = np.concatenate([PICTURE, PICTURE[..., :1] // 2], 2)
    file = encode(Image.frombytes("CMYK", (90, 60), inks.tobytes()), "TIFF", tmp_path)
    found = decode(chain, file).image
    assert found is not None
    expected = np.array(Image.frombytes("CMYK", (90, 60), inks.tobytes()).convert("RGB"))
    assert np.array_equal(found, expected)


def test_float_pixels_are_rejected_with_a_fix(chain: ImageDecoder) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(buffer, "TIFF")
    (decoded,) = decode_all(chain, [EncodedImage(buffer.getvalue(), "tiff", "F", 1, (4, 4))])
    assert decoded.image is None
    assert "convert the file" in decoded.reason


def test_bad_files_in_a_dali_batch_do_not_affect_others(chain: ImageDecoder, tmp_path: Path) -> None:
    good = encode(Image.fromarray(PICTURE), "JPEG", tmp_path)
    bad = EncodedImage(b"\xff\xd8\xff nothing", "jpeg", "RGB", 1, (60, 90))
    files = [good, bad, good, good, bad, good, good, good, good, bad]
    corner = Region(5, 7, 45, 60)
    results = chain.decode(files, [DecodePlan("region", corner, ()) for _ in files])
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
    expected = decode_opencv(good.data)[5:45, 7:60]
    assert all(np.array_equal(r.image, expected) for r in results if r.image is not None)


def test_the_gpu_decoder_differs_only_in_one_parameter() -> None:
    """Without a GPU, DALI reports a missing driver, not an invalid graph."""
    import torch

    data = cv2.imencode(".jpg", PICTURE)[1].tobytes()
    decoder = DaliDecoder(max_batch_size=1, device="gpu")
    (found,) = decoder.decode([DaliInput("one", data, full_region((60, 90)))])
    if torch.cuda.is_available():
        assert isinstance(found, np.ndarray)
        return
    assert isinstance(found, DaliFailure)
    assert re.search("(?i)cuda|driver|gpu|nvml", found.reason)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_region_equals_a_crop_of_the_full_image(
    kind: str, orientation: int, chain: ImageDecoder, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encode(Image.fromarray(PICTURE), kind, tmp_path, exif=exif)
    (full,) = decode_all(chain, [file])
    assert full.image is not None
    expected = full.image.copy()
    for region in (Region(0, 0, 1, 1), Region(3, 7, 50, 41), Region(17, 20, 60, 60)):
        (part,) = chain.decode([file], [DecodePlan("region", region, ())])
        assert part.image is not None
        assert np.array_equal(part.image, expected[region.y0 : region.y1, region.x0 : region.x1])


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_a_reduced_image_keeps_the_geometry(shrink: int, chain: ImageDecoder, tmp_path: Path) -> None:
    picture = make_picture(9, 800, 1200)
    file = encode(Image.fromarray(picture), "JPEG", tmp_path, quality=95)
    region, size = Region(101, 203, 101 + 80 * shrink, 203 + 90 * shrink), (64, 72)
    reduced = DecodePlan("reduced", region, (), shrink, Resampling(size, cv2.INTER_LINEAR))
    (found,) = chain.decode([file], [reduced])
    assert found.image is not None
    part = decode_opencv(file.data)[region.y0 : region.y1, region.x0 : region.x1]
    expected = cv2.resize(part, size[::-1], interpolation=cv2.INTER_AREA)
    assert cv2.PSNR(found.image, expected) > 40


def test_a_file_of_another_size_than_indexed_is_rejected_with_a_fix(
    chain: ImageDecoder, tmp_path: Path
) -> None:
    file = encode(Image.fromarray(PICTURE), "JPEG", tmp_path)
    (decoded,) = decode_all(chain, [replace(file, size=(61, 90))])
    assert decoded.image is None
    assert "index again" in decoded.reason


def test_bad_files_print_nothing_of_opencv_and_no_filter_of_warnings_stays(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = list(warnings.filters)
    for data in (b"II*\0" + bytes(60), b"BM" + bytes(60), b"\x89PNG\r\n\x1a\n" + bytes(60)):
        for decode in (decode_opencv, lambda data: decode_pillow(data, (4, 4))):
            with pytest.raises(ValueError, match=r"."):
                decode(data)
    assert warnings.filters == before
    assert capfd.readouterr().err == ""
