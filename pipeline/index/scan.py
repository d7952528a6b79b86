"""Scans the files of a listing in chunks; unchanged files of an older index are not opened again."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, cast

from ..formats.headers import CANNOT_OPEN, Header, one_line, read_header, read_header_from
from ..formats.mask_headers import mask_problem
from ..storage.local import FileStat, is_remote
from ..storage.range_file import HEADER_BYTES, RangeFile
from ..storage.storage import Storage
from ..uris import public_uri
from .file_info import HASH_CHUNK_BYTES, HEADER_COLUMNS, FileInfo, content_hash, streamed_hash
from .index import Index
from .sources.listing import Listing, as_text

LOCAL_CHUNK_FILES, REMOTE_CHUNK_FILES = 64, 4
"""Files per chunk. Remote reads wait for the network, and small chunks keep all threads busy."""
_MASK_STATUS = "mask "
"""Prefix of a status that concerns the mask, which may change while the image does not."""
_NAME_STATUS = f"{CANNOT_OPEN}its name is not UTF-8; rename it"

FileEntry = tuple[str, str | None, FileStat | None]
"""URI, mask, and the stat from a remote listing."""


@dataclass(frozen=True)
class Scanner:
    """Reads image headers, and complete files if their content is hashed. Thread-safe."""

    storage: Storage
    known: Mapping[str, FileInfo]
    hash_content: bool

    def scan(self, uri: str, mask: str | None, file_stat: FileStat | None) -> FileInfo:
        """Scan one file; a bad one gets an error status.

        Raises:
            SourceUnavailableError: its source does not respond.
        """
        if as_text(uri) != uri:
            return FileInfo(0, 0, Header(status=_NAME_STATUS), was_read=True)
        try:
            info = self._scan_remote(uri, file_stat) if is_remote(uri) else self._scan_local(uri)
            if (
                info.header.status == "ok"
                and mask is not None
                and (reason := self._mask_problem(mask, info.header))
            ):
                info = replace(info, header=replace(info.header, status=one_line(f"{_MASK_STATUS}{reason}")))
        except FileNotFoundError:
            return FileInfo(0, 0, Header(status=f"{CANNOT_OPEN}file not found"), was_read=True)
        except OSError as error:
            status = one_line(f"{CANNOT_OPEN}{error.strerror or error}")
            return FileInfo(0, 0, Header(status=status), was_read=True)
        return info

    def _scan_local(self, uri: str) -> FileInfo:
        try:
            status = os.stat(uri)  # noqa: PTH116
        except (OSError, ValueError):
            return FileInfo(0, 0, read_header(uri), was_read=True)  # for its error status
        file_stat = FileStat(status.st_size if stat.S_ISREG(status.st_mode) else 0, status.st_mtime_ns)
        if (known_info := self._unchanged(uri, file_stat)) is not None:
            return known_info
        info = FileInfo(file_stat.bytes, file_stat.mtime_ns, read_header(uri), was_read=True)
        if self.hash_content and not info.header.status.startswith(CANNOT_OPEN):
            digest = streamed_hash(
                lambda offset, size: self.storage.read(uri, offset, size).data, file_stat.bytes
            )
            info = replace(info, hash=digest)
        return info

    def _scan_remote(self, uri: str, file_stat: FileStat | None) -> FileInfo:
        file_stat = file_stat or self.storage.stat(uri)
        if (known_info := self._unchanged(uri, file_stat)) is not None:
            return known_info

        def fetch(offset: int, size: int) -> bytes:
            return self.storage.read(uri, offset, size, expected=size).data

        digest: str | None
        if self.hash_content and file_stat.bytes <= HASH_CHUNK_BYTES:
            data = fetch(0, file_stat.bytes)
            header, digest = read_header_from(io.BytesIO(data)), content_hash(data)
        else:
            header = read_header_from(cast("IO[bytes]", RangeFile(fetch, file_stat.bytes, HEADER_BYTES)))
            digest = streamed_hash(fetch, file_stat.bytes) if self.hash_content else None
        return FileInfo(
            file_stat.bytes, file_stat.mtime_ns, header, was_read=True, etag=file_stat.etag, hash=digest
        )

    def _unchanged(self, uri: str, file_stat: FileStat) -> FileInfo | None:
        known_info = self.known.get(uri)
        if known_info is None or (self.hash_content and known_info.hash is None):
            return None
        return (
            known_info
            if FileStat(known_info.bytes, known_info.mtime_ns, known_info.etag) == file_stat
            else None
        )

    def _mask_problem(self, mask: str, image_header: Header) -> str:
        """Return why a mask cannot be used, in one line, or an empty string."""
        name = as_text(public_uri(mask))
        try:
            mask_header = self._read_mask_header(mask)
        except FileNotFoundError:
            return f"not found: {name}"
        except OSError as error:
            return f"{CANNOT_OPEN}{error.strerror or error} ({name})"
        reason = mask_problem(mask_header, image_header)
        return f"does not fit: {reason} ({name})" if reason else ""

    def _read_mask_header(self, mask: str) -> Header:
        if not is_remote(mask):
            os.stat(mask)  # noqa: PTH116
            return read_header(mask)
        file_stat = self.storage.stat(mask)

        def fetch(offset: int, size: int) -> bytes:
            return self.storage.read(mask, offset, size, expected=size).data

        return read_header_from(cast("IO[bytes]", RangeFile(fetch, file_stat.bytes, HEADER_BYTES)))


def known_file_infos(previous: Index | None) -> dict[str, FileInfo]:
    """Return the rows of an older index by URI, without those whose status may change while the file does not."""
    if previous is None:
        return {}
    names = ("uri", "bytes", "mtime_ns", "etag", "offset", "hash", *HEADER_COLUMNS)
    return {
        uri: FileInfo(num_bytes, mtime_ns, Header(*header), was_read=False, etag=etag, hash=digest)
        for uri, num_bytes, mtime_ns, etag, offset, digest, *header in _columns(previous, names)
        if offset is None and is_reusable_status(header[-1])
    }


def is_reusable_status(status: str) -> bool:
    """Return whether a status can change only with the content of the file."""
    return not status.startswith((CANNOT_OPEN, _MASK_STATUS))


def _columns(index: Index, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(index.table[name].to_pylist() for name in names), strict=True)


@dataclass(frozen=True)
class FileChunk:
    """Some files of a listing, with their known file information."""

    files: Sequence[FileEntry]
    known: Mapping[str, FileInfo]
    """Rows of an older index, by URI."""
    hash_content: bool

    @property
    def uris(self) -> Sequence[str]:
        """The URIs of the files."""
        return [uri for uri, _, _ in self.files]

    def scan(self, storage: Storage) -> list[FileInfo]:
        """Scan the files, in order.

        Raises:
            SourceUnavailableError: their source does not respond.
        """
        scanner = Scanner(storage, self.known, self.hash_content)
        return [scanner.scan(*file) for file in self.files]


def chunk_size(listing: Listing) -> int:
    """Return the number of files per chunk."""
    return REMOTE_CHUNK_FILES if any(map(is_remote, listing.uris[:1])) else LOCAL_CHUNK_FILES


def file_chunks(
    listing: Listing, known: Mapping[str, FileInfo], *, hash_content: bool
) -> Iterator[FileChunk]:
    """Split the files of a listing into chunks, each with the known rows of its files."""
    size = chunk_size(listing)
    for start in range(0, len(listing.uris), size):
        rows = slice(start, start + size)
        uris = listing.uris[rows]
        masks: Sequence[str | None] = listing.masks[rows] if listing.masks else [None] * len(uris)
        stats: Sequence[FileStat | None] = (
            listing.file_stats[rows] if listing.file_stats else [None] * len(uris)
        )
        files = list(zip(uris, masks, stats, strict=True))
        yield FileChunk(files, {uri: known[uri] for uri in uris if uri in known}, hash_content)
