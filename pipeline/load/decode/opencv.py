"""Decoding with OpenCV: full images, and JPEGs reduced by the DCT. Orientation is not applied."""

from __future__ import annotations

import os

import cv2
import numpy as np

from ...geometry import Size
from .plan import DecodePlan

# OpenCV prints errors of bad files on standard error, which the quarantine already reports. Set the variable to see
# them; DALI's own copy of OpenCV reads it when loaded.
if "OPENCV_LOG_LEVEL" not in os.environ:
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_REDUCED_RGB = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | _RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | _RGB,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | _RGB,
}
"""OpenCV has no flags for reduced RGB; the gray flags set the reduction, the other flag the colour."""


def decode_opencv(data: bytes) -> np.ndarray:
    """Decode to uint8 HWC RGB as stored.

    Raises:
        ValueError: OpenCV cannot.
    """
    return _decode(data, _RGB)


def decode_16bit(data: bytes) -> np.ndarray:
    """Decode 16-bit gray or colour, with or without alpha, to uint8 HWC RGB as stored: ``round(value / 257)``.

    Raises:
        ValueError: OpenCV cannot, or there are not 16 bits.
    """
    wide = _decode(data, cv2.IMREAD_UNCHANGED)
    if wide.dtype != np.uint16:
        raise ValueError(f"expected 16-bit pixels, got {wide.dtype}; convert the file")
    narrow = ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if narrow.ndim == 2:
        return np.repeat(narrow[..., None], 3, axis=2)
    return np.ascontiguousarray(narrow[..., 2::-1])


def decode_reduced(data: bytes, decoding: DecodePlan, size: Size) -> np.ndarray:
    """Decode a JPEG at reduced size and resample the planned region.

    Args:
        data: the encoded file.
        decoding: decode plan of the image as stored.
        size: height and width as stored and indexed.

    Raises:
        ValueError: OpenCV cannot decode it, or its size differs from the index.
    """
    reduced = _decode(data, _REDUCED_RGB[decoding.shrink])
    expected = _reduced_size(size, decoding.shrink)
    if reduced.shape[:2] != expected:
        raise ValueError(
            f"expected {expected[1]}x{expected[0]} pixels, 1/{decoding.shrink} of what is indexed, got "
            f"{reduced.shape[1]}x{reduced.shape[0]}; the file changed: index again"
        )
    return _resample(reduced, decoding)


def reduce_decoded(image: np.ndarray, decoding: DecodePlan) -> np.ndarray:
    """Reduce a full image as ``decode_reduced`` does a file, for JPEGs that OpenCV cannot decode."""
    size = _reduced_size((image.shape[0], image.shape[1]), decoding.shrink)
    return _resample(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), decoding)


def _reduced_size(size: Size, shrink: int) -> Size:
    return -(-size[0] // shrink), -(-size[1] // shrink)


def _resample(reduced: np.ndarray, decoding: DecodePlan) -> np.ndarray:
    """Resample the planned region of a reduced image.

    Pixel centres are preserved: output pixel ``u`` corresponds to ``x0 + (u + 1/2) * width / width_out`` of the full
    image, whatever the reduction.
    """
    assert decoding.resampling is not None
    height, width = decoding.resampling.size
    if decoding.resampling.interpolation == cv2.INTER_AREA:
        return _shrink_by_area(reduced, decoding, (height, width))
    region = decoding.region
    step_y = region.size[0] / (height * decoding.shrink)
    step_x = region.size[1] / (width * decoding.shrink)
    start_y = region.y0 / decoding.shrink + step_y / 2 - 0.5
    start_x = region.x0 / decoding.shrink + step_x / 2 - 0.5
    return cv2.warpAffine(
        reduced,
        np.array([[step_x, 0, start_x], [0, step_y, start_y]]),
        (width, height),
        flags=decoding.resampling.interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _shrink_by_area(reduced: np.ndarray, decoding: DecodePlan, size: Size) -> np.ndarray:
    region, shrink = decoding.region, decoding.shrink
    rows = slice(round(region.y0 / shrink), max(round(region.y0 / shrink) + 1, round(region.y1 / shrink)))
    columns = slice(round(region.x0 / shrink), max(round(region.x0 / shrink) + 1, round(region.x1 / shrink)))
    return cv2.resize(reduced[rows, columns], size[::-1], interpolation=cv2.INTER_AREA)


def _decode(data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if image is None:
        raise ValueError("not an image that OpenCV can decode")
    return image
