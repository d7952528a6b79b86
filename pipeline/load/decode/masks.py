"""Decoding of label masks: stored label numbers, upright, never converted to colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from ...formats.headers import Header, one_line, read_header_from
from ...formats.image_reader import open_image
from ...formats.mask_headers import mask_problem
from .orientation import upright

_PNG_DEPTH, _PNG_COLOR = 24, 25
"""Offsets of bit depth and colour type in a PNG's header."""
_BITS_PER_SAMPLE = 258
"""Tag of TIFF."""
_SPREAD = {2: 85, 4: 17}
"""Factor by which Pillow scales grey values of 2 and 4 bits to 8 bits."""


def decode_mask(data: bytes, picture: Header) -> np.ndarray:
    """Decode the label mask of an image to uint8 (H, W), as large as the upright image.

    Stored grey values or palette indices of 1, 2, 4 or 8 bits are the labels.

    Args:
        data: content of the mask file.
        picture: header of the image.

    Raises:
        ValueError: the file does not fit the image, or cannot be decoded.
    """
    header = read_header_from(io.BytesIO(data))
    if reason := mask_problem(header, picture):
        raise ValueError(reason)
    try:
        with open_image(data) as opened:
            spread = _spread(data, opened)
            mask = np.array(opened)
    except Exception as error:  # Pillow's plugins raise a dozen kinds; all mean a bad file
        reason = one_line(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"expected a label mask, got a broken {header.format} ({reason}); write the file again"
        ) from error
    mask = mask.astype(np.uint8, copy=False)
    if spread > 1:
        mask //= np.uint8(spread)
    # Pillow applies the orientation of TIFF while decoding, and of no other format.
    return mask if header.format == "tiff" else upright(mask, header.orientation)


def _spread(data: bytes, image: Any) -> int:
    """Return the factor by which Pillow scales the labels of a grey mask with fewer than 8 bits."""
    if image.mode != "L":
        return 1
    if image.format == "PNG" and data[_PNG_COLOR] == 0:
        return _SPREAD.get(data[_PNG_DEPTH], 1)
    if image.format == "TIFF":
        return _SPREAD.get(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))[0], 1)
    return 1
