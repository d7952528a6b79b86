"""Label masks: the stored numbers, upright, or a refusal with the cure."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from lightwell.pipeline.formats.headers import Header
from lightwell.pipeline.load.decode.masks import decode_mask
from PIL import Image, ImageOps

HEIGHT, WIDTH = 6, 10
LABELS = (np.arange(HEIGHT * WIDTH) % 16).astype(np.uint8).reshape(HEIGHT, WIDTH)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def gray_png(labels: np.ndarray, bits: int) -> bytes:
    """Write a gray PNG of fewer than 8 bits, which Pillow cannot."""
    planes = np.unpackbits(labels[..., None], axis=2)[..., 8 - bits :].reshape(len(labels), -1)
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in planes)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette([value for number in range(256) for value in (255 - number, number * 7 % 256, 40)])
    return image


def picture(orientation: int = 1, width: int = WIDTH, height: int = HEIGHT) -> Header:
    return Header(width, height, 3, "RGB", "png", orientation)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_palette_indices_are_labels(kind: str) -> None:
    assert np.array_equal(decode_mask(encoded(palette(LABELS), kind), picture()), LABELS)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_gray_values_are_labels(kind: str) -> None:
    labels = LABELS * 17
    assert np.array_equal(decode_mask(encoded(Image.fromarray(labels), kind), picture()), labels)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_labels_of_few_bits_are_not_spread_over_the_range_of_bytes(bits: int) -> None:
    labels = LABELS & ((1 << bits) - 1)
    assert np.array_equal(decode_mask(gray_png(labels, bits), picture()), labels)


def test_one_bit_masks_hold_0_and_1() -> None:
    for kind in ("PNG", "TIFF", "BMP"):
        data = encoded(Image.fromarray(LABELS % 2 * 255).convert("1"), kind)
        assert np.array_equal(decode_mask(data, picture()), LABELS % 2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_mask_is_rotated_by_its_own_orientation_only(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(LABELS), kind, exif=exif)
    plain = Image.open(io.BytesIO(encoded(Image.fromarray(LABELS), "PNG", exif=exif)))
    upright = np.array(ImageOps.exif_transpose(plain))
    for of_picture in (1, 6):
        height, width = upright.shape if of_picture == 1 else upright.shape[::-1]
        assert np.array_equal(decode_mask(data, picture(of_picture, width, height)), upright)


def test_a_mask_that_fits_only_the_stored_image_is_rejected_with_the_reason() -> None:
    with pytest.raises(
        ValueError, match=r"expected 6x10, .* upright picture, got 10x6, .* EXIF orientation 6"
    ):
        decode_mask(encoded(Image.fromarray(LABELS)), picture(6))


REFUSED = {
    "another size": (
        encoded(Image.fromarray(np.tile(LABELS, (2, 2)))),
        "expected 10x6 as the picture, got 20x12",
    ),
    "colours": (encoded(Image.new("RGB", (WIDTH, HEIGHT))), "expected one channel of label numbers, got RGB"),
    "alpha": (encoded(Image.new("RGBA", (WIDTH, HEIGHT))), "one channel of label numbers, got RGBA"),
    "gray with alpha": (encoded(Image.new("LA", (WIDTH, HEIGHT))), "one channel of label numbers, got LA"),
    "16 bits": (
        encoded(Image.fromarray(LABELS.astype(np.uint16))),
        "at most 8 bits per pixel, got mode I;16",
    ),
    "floats": (
        encoded(Image.fromarray(LABELS.astype(np.float32)), "TIFF"),
        "at most 8 bits per pixel, got mode F",
    ),
    "JPEG": (
        encoded(Image.fromarray(LABELS), "JPEG"),
        "keep label numbers, got jpeg; .* save the mask as PNG",
    ),
    "PGM": (encoded(Image.fromarray(LABELS), "PPM"), "keep label numbers, got ppm"),
    "GIF": (encoded(palette(LABELS), "GIF"), "keep label numbers, got gif"),
    "no picture": (b"labels", "expected a label mask, got a file that cannot be used"),
    "nothing": (b"", "expected a label mask, got a file that cannot be used"),
    "cut": (encoded(Image.fromarray(LABELS))[:-30], "got a broken png|cannot be used"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_files_without_labels_of_the_image_are_rejected_with_a_fix(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_mask(data, picture())
