"""Checks by its header whether a file can be the label mask of an image."""

from __future__ import annotations

from ..geometry import FIRST_TRANSPOSED
from .headers import Header

IGNORED = 255
"""Label of pixels that are not annotated, for ``ignore_index`` of torch losses."""
MASK_FORMATS = frozenset({"png", "tiff", "bmp"})
"""Lossless formats. JPEG changes values, PPM may scale them, and GIF encoders renumber the palette."""
MASK_MODES = frozenset({"1", "L", "P"})
"""Pillow modes with one label of at most 8 bits per pixel: gray values or palette indices."""
WIDE_MODES = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def mask_problem(mask: Header, image: Header) -> str:
    """Return why a file cannot be the label mask of an image, in one line; an empty string if it can.

    A mask refers to the upright image: after its own EXIF orientation, if any, both must have the same size.
    """
    if mask.status != "ok" and mask.mode not in WIDE_MODES:
        return f"expected a label mask, got a file that cannot be used ({mask.status}); save the labels as a grey PNG"
    if mask.format not in MASK_FORMATS:
        return (
            f"expected PNG, TIFF or BMP, which keep label numbers, got {mask.format}; draw the labels anew and save "
            "the mask as PNG"
        )
    if mask.mode in WIDE_MODES:
        return (
            f"expected at most 8 bits per pixel, got mode {mask.mode}; number the labels from 0 to 254 and save the "
            "mask as an 8-bit grey PNG"
        )
    if mask.mode not in MASK_MODES:
        return (
            f"expected one channel of label numbers, got {mask.mode}; replace colours with label numbers and save the "
            "mask as a grey or palette PNG"
        )
    return _size_problem(mask, image)


def _size_problem(mask: Header, image: Header) -> str:
    height, width = _upright_size(image)
    got_height, got_width = _upright_size(mask)
    if (got_height, got_width) == (height, width):
        return ""
    if (got_height, got_width) == (image.height, image.width):
        return (
            f"expected {width}x{height}, the size of the upright picture, got {got_width}x{got_height}, its size before "
            f"EXIF orientation {image.orientation} is applied; turn the mask upright"
        )
    return f"expected {width}x{height} as the picture, got {got_width}x{got_height}; make the mask as large as its picture"


def _upright_size(header: Header) -> tuple[int, int]:
    size = header.height, header.width
    return size[::-1] if header.orientation >= FIRST_TRANSPOSED else size
