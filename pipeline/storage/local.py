"""The interface through which all files are read, and its implementation for local disks."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class FileStat:
    """Size, modification time and ETag of a file."""

    bytes: int
    mtime_ns: int = 0
    """0 if unknown."""
    etag: str | None = None
    """Changes with the content; in the store's own format."""


class ReadResult(NamedTuple):
    """A byte range of a file."""

    data: bytes
    """The requested bytes, or those up to the end of the file."""
    file_bytes: int | None
    """Size of the whole file, if the response states it."""
    mtime_ns: int | None
    """Of the file, if the response states it."""
    etag: str | None = None
    """Of the file, if the response states it."""


class Store(Protocol):
    """Reads byte ranges of files. Thread-safe."""

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:
        """Read up to ``size`` bytes; fewer than ``expected`` are accepted only at the end of the file.

        Raises:
            OSError: the file cannot be read: missing, forbidden, or a directory.
            SourceUnavailableError: the source does not respond.
        """
        ...

    def stat(self, uri: str) -> FileStat:
        """Return size, modification time and ETag of a file; raises as ``read`` does."""
        ...

    def close(self) -> None:
        """Close connections and cancel waiting retries."""
        ...


def is_remote(uri: str) -> bool:
    """Return whether a path or URI is not on a local disk."""
    return not uri.startswith("/") and "://" in uri


def without_file_scheme(uri: str) -> str:
    """Turn ``file:///a%20b`` into ``/a b``; return anything else unchanged."""
    return unquote(urlsplit(uri).path) if uri[:7].lower() == "file://" else uri


def store_root(uri: str) -> str:
    """Return bucket or server of a URI: ``s3://bucket`` for ``s3://bucket/a/b.jpg``."""
    return "/".join(uri.split("/", 3)[:3])


class LocalStore:
    """Store for local files, with as few system calls as possible."""

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:  # noqa: ARG002 - a local read is never cut short
        """Read a byte range of a file.

        Raises:
            OSError: the file cannot be opened or read, or is not a regular file.
        """
        _check_name(uri)
        # O_NONBLOCK: opening a named pipe without a writer would block.
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
        """Return size and modification time of a file.

        Raises:
            OSError: the file is missing, or not a regular file.
        """
        _check_name(uri)
        found = os.stat(uri)  # noqa: PTH116 - as fast as it gets
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "not a regular file", uri)
        return FileStat(found.st_size, found.st_mtime_ns)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _check_name(path: str) -> None:
    """Raise OSError for a path with a zero byte, for which Python raises ValueError."""
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
