"""Decoding with Pillow, and the conversion rule to RGB for all decoders.

Conversion to RGB with 8 bits per channel, whichever decoder is used:

* gray: the value three times; 1 bit: 0 and 255; 2 and 4 bits: scaled to 0..255; palette: the palette's colours
* alpha, also a palette's: dropped, the colour stays as stored
* 16 bits: ``round(value / 257)``; for 16-bit JPEG 2000 colour and CMYK TIFF Pillow keeps only the high byte
* CMYK and YCCK: ``R = (255 - K) - round(C * (255 - K) / 255)`` and so on, no colour profile
* Lab, 32-bit integer and float pixels: rejected, as Pillow does not convert them or their range is unknown
* the first of several frames or pages; EXIF orientation is applied later by ``orientation.upright``

Choice of decoder: JPEG, PNG and WebP without alpha, palette, CMYK or 16 bits are decoded by DALI or OpenCV, which are
bit-identical; PNG with 16 bits by OpenCV, the only one that keeps them; all else by Pillow, always in full.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...formats.image_reader import open_image, stored_size
from ...formats.integrity import size_mismatch, unsupported_mode
from ...geometry import Size
from .opencv import decode_16bit
from .orientation import upright

WIDE_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}
_ORIENTATION_TAG, _BITS_TAG = 274, 258
_BACK = {6: 8, 8: 6}
"""Inverses of the orientations that are not their own inverse."""


def decode_pillow(data: bytes, size: Size) -> np.ndarray:
    """Decode to uint8 HWC RGB as stored, by the rule above.

    Args:
        data: the encoded file.
        size: height and width as stored and indexed, checked before decoding.

    Raises:
        ValueError: Pillow cannot decode it, the size differs, or its mode is not supported.
    """
    try:
        with open_image(data) as image:
            if stored_size(image) != size:
                raise ValueError(size_mismatch(size, stored_size(image)))
            return _decode(image, data)
    except Exception as error:  # Pillow's plugins raise a dozen kinds; all mean a bad file
        if type(error) is ValueError:
            raise
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _decode(image: Any, data: bytes) -> np.ndarray:
    if image.format != "TIFF":
        return to_rgb(image)
    # Pillow and OpenCV apply the orientation of TIFF while loading: Pillow by the tag, else by XMP. Only the tag counts,
    # and its rotation is undone here.
    tag = image.tag_v2.get(_ORIENTATION_TAG, 1)
    turned = tag if isinstance(tag, int) and 1 <= tag <= 8 else 1
    back = _BACK.get(turned, turned)
    bits = image.tag_v2.get(_BITS_TAG, (1,))
    if image.mode in ("RGB", "RGBA", "RGBX") and max(bits) > 8:
        return upright(decode_16bit(data), back)
    image.getexif()[_ORIENTATION_TAG] = turned
    return upright(to_rgb(image), back)


def to_rgb(image: Any) -> np.ndarray:
    """Apply the rule above to a Pillow image."""
    if image.mode == "I" and image.format == "PPM":  # PGM with 16 bits: Pillow scales its maximum to 65535
        return _gray(np.asarray(image))
    if problem := unsupported_mode((image.format or "").lower(), image.mode):
        raise ValueError(problem)
    if image.mode in WIDE_MODES:
        return _gray(np.asarray(image))
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return np.array(image.convert("RGB"))


def _gray(wide: np.ndarray) -> np.ndarray:
    gray = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
