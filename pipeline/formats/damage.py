"""What is known of a picture before it is decoded, and how its bytes can be wrong."""

from __future__ import annotations

ImageInfo = tuple[int, int, tuple[str, ...]]
"""Height and width as stored, and the modes, by Pillow's names, that such a file can have."""


class DamagedError(ValueError):
    """A checksum in the file is not that of its bytes."""

    label = "damaged"


class TruncatedError(DamagedError):
    """The file ends before its end marker."""

    label = "truncated"
