"""Decode with Pillow, and the one stated rule for every kind of pixel.

The rule to RGB, 8 bits a channel:

* gray: the value three times; 1 bit: 0 and 255; palette: the palette's colours
* alpha, also a palette's: dropped, the colour stays as stored
* 16 bits: ``round(value / 257)``
* CMYK and YCCK: ``R = 255 - min(255, C + K)`` and so on, no colour profile (Pillow's rule)
* 32-bit integer and float pixels: refused, since no range can be known
* EXIF orientation applied; of several frames or pages the first
"""

from __future__ import annotations

import numpy as np

from ..image_reader import open_image

WIDE_MODES = {"I;16", "I;16B", "I;16L", "I;16N"}
REFUSED_MODES = {"I", "F"}


def decode_pillow(data: bytes) -> np.ndarray:
    """Decode to uint8 HWC RGB by the rule above.

    Raises:
        ValueError: Pillow cannot, or the pixels are 32-bit integers or floats.
    """
    from PIL import ImageOps

    try:
        # Pillow refuses twice what it warns of, and that is what the index refuses too.
        with open_image(data) as opened:
            image = ImageOps.exif_transpose(opened)
            return to_rgb(image)
    except Exception as error:  # Pillow's plugins raise a dozen kinds; all of them say that this file is bad
        raise ValueError(f"{type(error).__name__}: {' '.join(str(error).split())}") from error


def to_rgb(image: object) -> np.ndarray:
    """Apply the rule above to a Pillow image."""
    from PIL import Image

    assert isinstance(image, Image.Image)
    if image.mode in REFUSED_MODES:
        raise ValueError(f"wanted 8- or 16-bit pixels, got Pillow mode {image.mode}; convert the file")
    if image.mode in WIDE_MODES:
        gray = np.round(np.asarray(image).astype(np.float64) / 257).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return np.array(image.convert("RGB"))
