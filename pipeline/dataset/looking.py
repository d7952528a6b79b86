"""Looks at every file of a listing in parallel; what an older index knows is not opened again."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, Any, cast

from .headers import CANNOT_OPEN, Header, QuietPillow, header_of, one_line, read_header
from .index import Index
from .seen import Seen, content_hash
from .sources.listing import Listing, as_text
from .sources.ranged import HEADER_BYTES, RangedFile
from .sources.storage import Storage
from .sources.store import Found, is_remote

_CHUNK = 64
_BAD_MASK = "mask not found: "
_BAD_NAME = f"{CANNOT_OPEN}its name is not UTF-8; rename it"
_HEADER = ("width", "height", "channels", "mode", "format", "orientation", "status")

File = tuple[str, str | None, Found | None]
"""URI, mask, and what a listing told already."""


@dataclass(frozen=True)
class Looker:
    """Reads headers, and whole files where their content is hashed. Any thread may use it."""

    storage: Storage
    known: Mapping[str, Seen]
    hash_content: bool

    def look(self, uri: str, mask: str | None, found: Found | None) -> Seen:
        """Look at one file; a bad one gets a status.

        Raises:
            SourceDownError: its source gives no answer.
        """
        if as_text(uri) != uri:
            return Seen(0, 0, Header(status=_BAD_NAME), was_read=True)
        try:
            seen = self._far(uri, found) if is_remote(uri) else self._near(uri)
            if seen.header.status == "ok" and mask is not None and not self._is_there(mask):
                seen = replace(seen, header=replace(seen.header, status=one_line(f"{_BAD_MASK}{mask}")))
        except FileNotFoundError:
            return Seen(0, 0, Header(status=f"{CANNOT_OPEN}file not found"), was_read=True)
        except OSError as error:
            status = one_line(f"{CANNOT_OPEN}{error.strerror or error}")
            return Seen(0, 0, Header(status=status), was_read=True)
        return seen

    def _near(self, uri: str) -> Seen:
        try:
            status = os.stat(uri)  # noqa: PTH116
        except (OSError, ValueError):
            return Seen(0, 0, read_header(uri), was_read=True)  # says why
        found = Found(status.st_size if stat.S_ISREG(status.st_mode) else 0, status.st_mtime_ns)
        if (old := self._as_before(uri, found)) is not None:
            return old
        seen = Seen(found.bytes, found.mtime_ns, read_header(uri), was_read=True)
        if self.hash_content and not seen.header.status.startswith(CANNOT_OPEN):
            seen = replace(seen, hash=content_hash(self.storage.read(uri, 0, found.bytes).data))
        return seen

    def _far(self, uri: str, found: Found | None) -> Seen:
        found = found or self.storage.look(uri)
        if (old := self._as_before(uri, found)) is not None:
            return old

        def fetch(offset: int, size: int) -> bytes:
            return self.storage.read(uri, offset, size, expected=size).data

        if self.hash_content:
            data = fetch(0, found.bytes)
            header, digest = header_of(io.BytesIO(data)), content_hash(data)
        else:
            header = header_of(cast("IO[bytes]", RangedFile(fetch, found.bytes, HEADER_BYTES)))
            digest = None
        return Seen(found.bytes, found.mtime_ns, header, was_read=True, etag=found.etag, hash=digest)

    def _as_before(self, uri: str, found: Found) -> Seen | None:
        old = self.known.get(uri)
        if old is None or (self.hash_content and old.hash is None):
            return None
        return old if Found(old.bytes, old.mtime_ns, old.etag) == found else None

    def _is_there(self, mask: str) -> bool:
        if not is_remote(mask):
            return os.path.isfile(mask)  # noqa: PTH113
        try:
            self.storage.look(mask)
        except FileNotFoundError:
            return False
        return True


def known_files(previous: Index | None) -> dict[str, Seen]:
    """What an older index knows of files, without those whose status may change while the file does not."""
    if previous is None:
        return {}
    names = ("uri", "bytes", "mtime_ns", "etag", "offset", "hash", *_HEADER)
    return {
        uri: Seen(num_bytes, mtime_ns, Header(*header), was_read=False, etag=etag, hash=digest)
        for uri, num_bytes, mtime_ns, etag, offset, digest, *header in _columns(previous, names)
        if offset is None and not header[-1].startswith((CANNOT_OPEN, _BAD_MASK))
    }


def _columns(index: Index, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(index.table[name].to_pylist() for name in names), strict=True)


def look_at(
    listing: Listing, looker: Looker, num_threads: int, progress: Callable[[int, int], None] | None
) -> list[Seen]:
    """Look at every file, in order. Threads: header reading waits for disks and networks, and for C code."""
    masks: Sequence[str | None] = listing.masks or [None] * len(listing.uris)
    found: Sequence[Found | None] = listing.found or [None] * len(listing.uris)
    files: list[File] = list(zip(listing.uris, masks, found, strict=True))
    # A remote file is waited for, so that small portions keep all threads busy.
    portion = 4 if any(map(is_remote, listing.uris[:1])) else _CHUNK
    chunks = [files[start : start + portion] for start in range(0, len(files), portion)]
    rows: list[Seen] = []
    with QuietPillow(), ThreadPoolExecutor(num_threads, thread_name_prefix="lightwell-index") as pool:
        try:
            for seen in _in_order(pool, chunks, looker, ahead=4 * num_threads):
                rows += seen
                if progress is not None:
                    progress(len(rows), len(files))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C does not wait for the rest
            raise
    return rows


def _in_order(
    pool: ThreadPoolExecutor, chunks: Sequence[Sequence[File]], looker: Looker, ahead: int
) -> Iterator[list[Seen]]:
    waiting = iter(chunks)
    running: list[Future[list[Seen]]] = [
        pool.submit(_chunk, chunk, looker) for chunk in islice(waiting, ahead)
    ]
    while running:
        yield running.pop(0).result()
        running += [pool.submit(_chunk, chunk, looker) for chunk in islice(waiting, 1)]


def _chunk(files: Sequence[File], looker: Looker) -> list[Seen]:
    return [looker.look(*file) for file in files]
