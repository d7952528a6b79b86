"""Measures of a stored file: content hash, bytes per pixel, and traces of its encoder and camera."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa

from .frames import has_several_frames
from .jpeg_traces import jpeg_traces
from .metadata_blocks import metadata_blocks
from .metadata_traces import exif_traces, icc_description

HASH_BYTES = 16

FILE_SCHEMA = pa.schema(
    [
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("bytes_per_pixel", pa.float32()),
        pa.field("jpeg_quality", pa.uint8()),
        pa.field("chroma_subsampling", pa.string()),
        pa.field("progressive", pa.bool_()),
        pa.field("exif_camera", pa.string()),
        pa.field("exif_software", pa.string()),
        pa.field("exif_date", pa.string()),
        pa.field("exif_orientation", pa.uint8()),
        pa.field("icc_profile", pa.string()),
        pa.field("has_several_frames", pa.bool_()),
    ]
)
"""Columns of ``file_measures``.

``content_hash`` is the BLAKE2b hash of the bytes, 128 bits as hexadecimal digits. The traces are null where a file has none
or they cannot be read: ``jpeg_quality`` (1..100, see ``jpeg_quality``), ``chroma_subsampling`` (such as ``4:2:0``),
``progressive``; ``exif_camera`` (make and model), ``exif_software``, ``exif_date`` (when the picture was taken, else when it
was saved, as written), ``exif_orientation`` (1..8); ``icc_profile`` (description of the color profile);
``has_several_frames`` (animated, or of several pages).
"""


def file_measures(data: bytes, format: str, width: int, height: int) -> dict[str, Any]:
    """Measure a stored file.

    Damaged metadata never raises; the measures that it spoils are None. Work on metadata is bounded.

    Args:
        data: the complete file.
        format: format by content, as in the index.
        width: stored width in pixels; 0 if unknown.
        height: stored height in pixels; 0 if unknown.

    Returns:
        A value for each column of ``FILE_SCHEMA``.
    """
    exif, icc = metadata_blocks(data, format)
    traces = jpeg_traces(data) if format == "jpeg" else None
    return {
        "content_hash": hashlib.blake2b(data, digest_size=HASH_BYTES).hexdigest(),
        "bytes_per_pixel": len(data) / (width * height) if width > 0 and height > 0 else None,
        "jpeg_quality": traces.quality if traces else None,
        "chroma_subsampling": traces.chroma_subsampling if traces else None,
        "progressive": traces.is_progressive if traces else None,
        **exif_traces(exif),
        "icc_profile": icc_description(icc),
        "has_several_frames": has_several_frames(data, format),
    }
