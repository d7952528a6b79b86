"""Decode with Pillow, and the one stated rule for every kind of pixel.

The rule to RGB, 8 bits a channel, whichever decoder is taken:

* gray: the value three times; 1 bit: 0 and 255; 2 and 4 bits: scaled to 0..255; palette: the palette's colours
* alpha, also a palette's: dropped, the colour stays as stored
* 16 bits: ``round(value / 257)``; only of JPEG 2000 colour and CMYK TIFF with 16 bits Pillow keeps the high byte
* CMYK and YCCK: ``R = (255 - K) - round(C * (255 - K) / 255)`` and so on, no colour profile
* Lab, 32-bit integer and float pixels: refused, since Pillow does not convert them or no range can be known
* of several frames or pages the first; pixels stay as stored, EXIF orientation is applied by ``orientation.upright``

Which decoder: JPEG, PNG and WebP without alpha, palette, CMYK or 16 bits go to DALI or OpenCV, which agree to the last
bit; PNG with 16 bits to OpenCV, the only one that keeps them; everything else to Pillow, always whole.
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
"""Orientations whose turn is undone by another one; the others undo themselves."""


def decode_pillow(data: bytes, size: Size) -> np.ndarray:
    """Decode to uint8 HWC RGB as stored, by the rule above.

    Args:
        data: the encoded file.
        size: height and width as stored and indexed, compared before anything is decoded.

    Raises:
        ValueError: Pillow cannot, the size is another, or the pixels are of a kind that is refused.
    """
    try:
        with open_image(data) as image:
            if stored_size(image) != size:
                raise ValueError(size_mismatch(size, stored_size(image)))
            return _decode(image, data)
    except Exception as error:  # Pillow's plugins raise a dozen kinds; all of them say that this file is bad
        if type(error) is ValueError:
            raise
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def _decode(image: Any, data: bytes) -> np.ndarray:
    if image.format != "TIFF":
        return to_rgb(image)
    # Pillow and OpenCV turn TIFF, and Pillow no other format, while they load: Pillow by the tag, else by XMP. The tag
    # holds; its turn is undone.
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
