"""Decode label masks: the stored numbers, upright, never colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ...formats.headers import Header, one_line, read_header_from
from ...formats.image_reader import open_image
from ...formats.mask_headers import mask_problem
from .orientation import upright

_PNG_DEPTH, _PNG_COLOR = 24, 25
"""Bytes of a PNG's header that hold the bit depth and the kind of colour."""
_BITS_PER_SAMPLE = 258
"""Tag of TIFF."""
_SPREAD = {2: 85, 4: 17}
"""By how much Pillow multiplies grey values of so many bits, to fill 8 bits."""


def decode_mask(data: bytes, picture: Header) -> np.ndarray:
    """Decode the label mask of a picture to uint8 (H, W), as large as the upright picture.

    Grey values and palette indices are labels as they are stored, with 1, 2, 4 or 8 bits.

    Args:
        data: the mask's file.
        picture: the picture's header.

    Raises:
        ValueError: the file does not fit the picture, or cannot be decoded.
    """
    header = read_header_from(io.BytesIO(data))
    if reason := mask_problem(header, picture):
        raise ValueError(reason)
    try:
        with open_image(data) as opened:
            spread = _spread(data, opened)
            mask = np.array(opened)
    except Exception as error:  # Pillow's plugins raise a dozen kinds; all of them say that this file is bad
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"expected a label mask, got a broken {header.format} ({reason}); write the file again"
        ) from error
    mask = mask.astype(np.uint8, copy=False)
    if spread > 1:
        mask //= np.uint8(spread)
    # Pillow turns TIFF while it decodes, and no other format.
    return mask if header.format == "tiff" else upright(mask, header.orientation)


def _spread(data: bytes, image: Any) -> int:
    """Return by how much Pillow multiplies the labels of a grey mask of fewer than 8 bits."""
    if image.mode != "L":
        return 1
    if image.format == "PNG" and data[_PNG_COLOR] == 0:
        return _SPREAD.get(data[_PNG_DEPTH], 1)
    if image.format == "TIFF":
        return _SPREAD.get(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))[0], 1)
    return 1
