"""Iterates over the members of an untrusted tar file, with resolved links and validated headers."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from ...errors import RunError
from ...storage.range_file import RangeFile
from .junk import junk_kind
from .listing import as_text
from .remarks import Remarks

MAX_HEADER_BYTES = 1 << 20
"""Largest extended header (long name, pax records) that is read."""
MAX_PADDING_BYTES = 16 << 20
"""Most zero bytes after an end mark that are skipped in search of a concatenated tar."""
_BLOCK = 512


@dataclass
class TarMember:
    """A member with data; a link has the data of its target."""

    name: str
    offset: int = 0
    """Byte offset of its data in the file."""
    size: int = 0
    target: str = ""
    """Name of a link's target until it is resolved."""
    problem: str = ""
    """Why its data cannot be used."""

    @property
    def is_resolved(self) -> bool:
        """Whether ``offset`` and ``size`` are known."""
        return not self.target


class _HeaderFile(io.RawIOBase):
    """File wrapper for ``tarfile``, which reads only headers from it; rejects oversized headers."""

    def __init__(self, file: RangeFile) -> None:
        super().__init__()
        self._file = file

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset < 0:
            raise tarfile.ReadError("a header with a negative size")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def iter_tar(file: RangeFile, num_bytes: int, problems: list[str], remarks: Remarks) -> Iterator[TarMember]:
    """Yield the members with data, in order; concatenated tars are read as one.

    Links are yielded in place, and resolved at the end of the iteration at the latest. Hidden members, junk, devices and
    the like are counted and skipped.

    Args:
        file: the tar.
        num_bytes: its size.
        problems: collects the reasons why the tar is incomplete.
        remarks: counts skipped members.
    """
    members: dict[str, TarMember] = {}
    unresolved: list[TarMember] = []
    start: int | None = 0
    while start is not None:
        end = _TarEnd(start)
        for info in _iter_headers(file, end, num_bytes, problems):
            member = _member_of(info, members, remarks)
            if member is None:
                continue
            members[member.name] = member
            if member.target:
                unresolved.append(member)
            kind = next(filter(None, map(junk_kind, _parts(member.name))), None)
            if kind is None:
                yield member
            else:
                remarks.add("left_out", kind, as_text(member.name))
        start = _next_tar(file, end.offset, num_bytes, problems) if not problems else None
        if start is not None:
            remarks.add(
                "assumed", "tars behind an end mark to belong to the shard before", f"at byte {start:,}"
            )
    for member in unresolved:
        _resolve(member, members)


@dataclass
class _TarEnd:
    """Offset that an iteration has reached."""

    offset: int


def _iter_headers(
    file: RangeFile, end: _TarEnd, num_bytes: int, problems: list[str]
) -> Iterator[tarfile.TarInfo]:
    """Yield the headers of one tar; stop at an invalid one and note the problem."""
    file.seek(end.offset)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", _HeaderFile(file)), mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all of them
                if info.size < 0 or tar.offset <= end.offset:
                    raise tarfile.ReadError(f"a member of {info.size:,} bytes")
                end.offset = tar.offset
                yield info
            end.offset = tar.offset
            # tarfile silently takes a damaged header after the first one for the end.
            block = file.read_at(tar.offset, _BLOCK)
            if any(block):
                problems.append(f"no member begins at byte {tar.offset:,}; what follows is lost")
            elif len(block) < _BLOCK:
                problems.append(f"it ends without an end mark at byte {tar.offset:,}; members may be missing")
    except (RunError, OSError) as error:
        if not isinstance(error, tarfile.TarError):
            raise
        problems.append(_reason(file, error, num_bytes))
    except (
        Exception
    ) as error:  # tarfile raises many kinds of errors on broken headers; the rest of the shard is lost
        problems.append(_reason(file, error, num_bytes))


def _reason(file: RangeFile, error: Exception, num_bytes: int) -> str:
    compressed = file.read_at(0, 2) in (b"\x1f\x8b", b"BZ") or file.read_at(0, 4) in (
        b"\xfd7zX",
        b"\x28\xb5\x2f\xfd",
    )
    hint = "; unpack it: only plain tar can be read at random" if compressed else ""
    return f"{' '.join(str(error).split()) or type(error).__name__}{hint} ({num_bytes:,} bytes)"


def _next_tar(file: RangeFile, offset: int, num_bytes: int, problems: list[str]) -> int | None:
    """Find a concatenated tar after an end mark; note any other data."""
    position = offset
    while position < num_bytes and position - offset < MAX_PADDING_BYTES:
        block = file.read_at(position, 128 * _BLOCK)
        if any(block):
            position += next(number for number, byte in enumerate(block) if byte) // _BLOCK * _BLOCK
            if file.read_at(position + 257, 5) == b"ustar":
                return position
            problems.append(f"other data follow behind its end mark at byte {position:,}; they are not read")
            return None
        position += len(block)
    if position < num_bytes:
        problems.append(f"{num_bytes - position:,} bytes far behind its end mark are not read")
    return None


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".", "..")]


def _member_of(info: tarfile.TarInfo, members: dict[str, TarMember], remarks: Remarks) -> TarMember | None:
    name = info.name.removeprefix("./")
    if info.isdir():
        return None
    if info.issym() or info.islnk():
        folder = "" if info.islnk() else posixpath.dirname(name)
        member = TarMember(name, target=posixpath.normpath(posixpath.join(folder, info.linkname)))
        if info.islnk():
            _resolve(member, members)  # the target of a hard link precedes it
        return member
    if not info.isreg():
        remarks.add("left_out", "members that are devices, pipes or of an unknown type", as_text(name))
        return None
    if info.issparse() or any(
        key.startswith("GNU.sparse") for key in cast("dict[str, Any]", info.pax_headers)
    ):
        return TarMember(
            name, problem="a sparse member, which is not stored in one piece; write the tar without --sparse"
        )
    return TarMember(name, info.offset_data, info.size)


def _resolve(member: TarMember, members: dict[str, TarMember]) -> None:
    """Give a link the data of its target, following chains of links."""
    target = member.target
    for _ in range(8):
        found = members.get(target) or members.get(target.removeprefix("./"))
        if found is None or found is member:
            break
        if not found.target:
            member.offset, member.size, member.problem = found.offset, found.size, found.problem
            member.target = ""
            return
        target = found.target
    member.problem = f"a link to {as_text(member.target)[:80]!r}, which is no file in this shard"
    member.target = ""
