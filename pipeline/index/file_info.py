"""Scan result of one file: size, modification time, hash and image header."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..formats.headers import Header

HEADER_COLUMNS = ("width", "height", "channels", "mode", "format", "orientation", "status")
MAX_HASHED_BYTES = 1 << 32
HASH_CHUNK_BYTES = 16 << 20
FILE_INFO_COLUMNS = ("bytes", "mtime_ns", "etag", "offset", "hash", "mask_offset", "mask_bytes")
"""Index columns with the fields of ``FileInfo``, without those of its header."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """Size, identity and image header of a file or of a shard's member."""

    bytes: int
    mtime_ns: int
    """Of the file, or of the shard."""
    header: Header
    was_read: bool
    """False if it was taken from an older index."""
    etag: str | None = None
    offset: int | None = None
    """Byte offset of a member in its shard; None for separate files."""
    hash: str | None = None
    mask_offset: int | None = None
    mask_bytes: int | None = None


def content_hash(data: bytes) -> str:
    """Hash the bytes of a file: BLAKE2b, 128 bits, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def streamed_hash(read: Callable[[int, int], bytes], num_bytes: int) -> str:
    """Hash a file like ``content_hash``, in chunks.

    Args:
        read: returns up to ``size`` bytes, given offset and size.
        num_bytes: size of the file.

    Raises:
        OSError: the file is too large.
    """
    if num_bytes > MAX_HASHED_BYTES:
        raise OSError(0, f"too large to be hashed: {num_bytes:,} bytes, more than {MAX_HASHED_BYTES:,}")
    digest = hashlib.blake2b(digest_size=16)
    for offset in range(0, num_bytes, HASH_CHUNK_BYTES):
        digest.update(read(offset, min(HASH_CHUNK_BYTES, num_bytes - offset)))
    return digest.hexdigest()


def file_info_from_row(row: Mapping[str, Any], *, was_read: bool) -> FileInfo:
    """Convert a table row to a ``FileInfo``."""
    header = Header(*(row[name] for name in HEADER_COLUMNS))
    return FileInfo(header=header, was_read=was_read, **{name: row[name] for name in FILE_INFO_COLUMNS})


def file_info_to_row(info: FileInfo) -> dict[str, Any]:
    """Convert a ``FileInfo`` to a table row."""
    return {
        **{name: getattr(info, name) for name in FILE_INFO_COLUMNS},
        **{name: getattr(info.header, name) for name in HEADER_COLUMNS},
    }
