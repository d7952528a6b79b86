"""What is known of one sample's file after it was looked at."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .headers import Header


@dataclass(frozen=True, slots=True)
class Seen:
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
