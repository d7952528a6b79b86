"""The one port through which bytes are read, and the local disk behind it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a store says of a file without opening it."""

    bytes: int
    mtime_ns: int = 0
    """0 where it is not told."""
    etag: str | None = None
    """What changes with the content, in the store's own words."""


class ReadResult(NamedTuple):
    """A part of a file as it was read."""

    data: bytes
    """As many bytes as were asked for, or those up to the file's end."""
    file_bytes: int | None
    """Size of the whole file, where the store tells it with the same request."""
    mtime_ns: int | None
    """As ``file_bytes``."""
    etag: str | None = None
    """As ``file_bytes``; what a listing calls ``etag``."""


class Store(Protocol):
    """Reads parts of files. Any thread may call it."""

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:
        """Read up to ``size`` bytes; a response of fewer than ``expected`` is believed only where the file is so short.

        Raises:
            OSError: this file cannot be read: it is gone, forbidden, or a directory.
            SourceDownError: the whole source gives no answer.
        """
        ...

    def stat(self, uri: str) -> FileStat:
        """Ask for size and identity of a file; raises as ``read`` does."""
        ...

    def close(self) -> None:
        """Let go of connections, and let nobody wait any longer."""
        ...


def is_remote(uri: str) -> bool:
    """Say whether something but the local disk has to be asked."""
    return not uri.startswith("/") and "://" in uri


def without_file_scheme(uri: str) -> str:
    """Turn ``file:///a%20b`` into ``/a b``; anything else stays."""
    return unquote(urlsplit(uri).path) if uri[:7].lower() == "file://" else uri


def store_root(uri: str) -> str:
    """Name the bucket or the server: ``s3://bucket`` of ``s3://bucket/a/b.jpg``."""
    return "/".join(uri.split("/", 3)[:3])


class LocalStore:
    """The local disk, asked directly: as few system calls as there can be."""

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:  # noqa: ARG002 - a disk tells the truth
        """Read a part of a file.

        Raises:
            OSError: it cannot be opened or read, or is no regular file.
        """
        _check_name(uri)
        # A pipe in a file's place must not block: no writer may ever come.
        handle = os.open(uri, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "not a regular file", uri)
            return ReadResult(
                _read_all(handle, offset, min(size, found.st_size - offset)), found.st_size, found.st_mtime_ns
            )
        finally:
            os.close(handle)

    def stat(self, uri: str) -> FileStat:
        """Ask for size and time of a file.

        Raises:
            OSError: there is none, or it is no regular file.
        """
        _check_name(uri)
        found = os.stat(uri)  # noqa: PTH116 - as fast as it gets
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file", uri)
        return FileStat(found.st_size, found.st_mtime_ns)

    def close(self) -> None:
        """Nothing is open."""


def _check_name(path: str) -> None:
    """Refuse what cannot be a path as the system does, not with a ValueError."""
    if "\0" in path:
        raise OSError(0, "a zero byte in its path", path)


def _read_all(handle: int, offset: int, size: int) -> bytes:
    if size <= 0:
        return b""
    data = os.pread(handle, size, offset)
    if len(data) == size:
        return data
    parts = [data]  # Linux reads at most 2 GiB at once
    while parts[-1] and (missing := size - sum(map(len, parts))) > 0:
        parts.append(os.pread(handle, missing, offset + sum(map(len, parts))))
    return b"".join(parts)
