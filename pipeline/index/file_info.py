"""What is known of one sample's file after it was looked at."""

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
"""Columns of an index that hold what was seen of a file, besides its header's."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file, or a member of a shard, with its identity and header."""

    bytes: int
    mtime_ns: int
    """Of the file, or of the shard."""
    header: Header
    was_read: bool
    """False where an older index knew all of it."""
    etag: str | None = None
    offset: int | None = None
    """Where a member begins in its shard; None for a file of its own."""
    hash: str | None = None
    mask_offset: int | None = None
    mask_bytes: int | None = None


def content_hash(data: bytes) -> str:
    """Hash the bytes of a file: BLAKE2b, 128 bits, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def streamed_hash(read: Callable[[int, int], bytes], num_bytes: int) -> str:
    """Hash a file as ``content_hash`` does, piece by piece.

    Args:
        read: returns up to so many bytes from an offset on.
        num_bytes: of the file.

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
    """Read what was seen of a file from its row in a table."""
    header = Header(*(row[name] for name in HEADER_COLUMNS))
    return FileInfo(header=header, was_read=was_read, **{name: row[name] for name in FILE_INFO_COLUMNS})


def file_info_to_row(seen: FileInfo) -> dict[str, Any]:
    """Write what was seen of a file as its row in a table."""
    return {
        **{name: getattr(seen, name) for name in FILE_INFO_COLUMNS},
        **{name: getattr(seen.header, name) for name in HEADER_COLUMNS},
    }
