"""Errors for damaged image files, and the header information that the checks compare."""

from __future__ import annotations

ImageInfo = tuple[int, int, tuple[str, ...]]
"""Stored height and width, and the possible modes of the file by Pillow's names."""


class DamagedError(ValueError):
    """A checksum of the file does not match."""

    label = "damaged"


class TruncatedError(DamagedError):
    """The file ends before its end marker."""

    label = "truncated"
