"""The members of a tar file, found by their headers: where each lies, what links lead to, and where the file breaks off."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from .listing import as_text
from .ranged import RangedFile

BLOCK = tarfile.BLOCKSIZE
MAX_MEMBERS = 10_000_000
MAX_HOPS = 16
"""Links that lead to links."""
MAX_ZERO_BYTES = 1 << 26
"""Searched behind an end mark for another archive."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in an archive, or a link to one."""

    name: str
    offset: int
    size: int
    problem: str = ""
    """Why its bytes cannot be read as they lie; empty where they can."""


@dataclass
class Archive:
    """One archive; a file may hold several, one behind the other.

    Of members with the same name the last one counts, as where an archive is unpacked.
    """

    members: dict[str, TarMember] = field(default_factory=dict)
    """By name, in the order of their first occurrence."""
    num_replaced: int = 0
    """Members that a later one of the same name replaces."""
    others: dict[str, str] = field(default_factory=dict)
    """Names of members that are no files, with what they are."""
    links: dict[str, str] = field(default_factory=dict)
    """From the name of a link to the name it leads to."""

    def add(self, info: tarfile.TarInfo) -> None:
        """Take a member by its header."""
        name = posixpath.normpath(info.name)
        if info.isdir():
            return
        if info.issym() or info.islnk():
            target = info.linkname if info.islnk() else posixpath.join(posixpath.dirname(name), info.linkname)
            self.links[name] = posixpath.normpath(target)
            self.members.setdefault(name, TarMember(name, 0, 0, "a link"))
            return
        if not info.isreg():
            self.others[name] = "a device or a pipe"
            return
        self.num_replaced += name in self.members
        self.links.pop(name, None)
        problem = (
            "a sparse file, whose bytes do not lie together; pack it without --sparse"
            if info.issparse()
            else ""
        )
        self.members[name] = TarMember(name, info.offset_data, info.size, problem)

    def resolve(self) -> None:
        """Let links stand for the members that they lead to; the others get a problem."""
        for name in self.links:
            target, hops = name, 0
            while target in self.links and hops < MAX_HOPS:
                target, hops = self.links[target], hops + 1
            found = self.members.get(target)
            if found is None or target in self.links:
                problem = f"a link to {as_text(self.links[name])[:100]!r}, which is no file of this shard"
                self.members[name] = TarMember(name, 0, 0, problem)
            else:
                self.members[name] = TarMember(name, found.offset, found.size, found.problem)


def read_archives(file: RangedFile, broken: list[str]) -> Iterator[Archive]:
    """Yield the archives of a file, in order.

    Args:
        file: the whole file.
        broken: filled with what is wrong where an archive breaks off.

    Raises:
        OSError: it cannot be read.
        SourceDownError: its source gives no answer.
    """
    start = 0
    while start is not None:
        archive = Archive()
        end = _read(file, start, archive, broken)
        archive.resolve()
        yield archive
        start = None if end is None else _next_archive(file, end, broken)  # type: ignore[assignment]


def _read(file: RangedFile, start: int, archive: Archive, broken: list[str]) -> int | None:
    """Read the headers of one archive; returns where it ends, None where it breaks off."""
    file.seek(start)
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", file), mode="r:") as tar:
            num = 0
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                archive.add(info)
                if (num := num + 1) > MAX_MEMBERS:
                    broken.append(f"it has more than {MAX_MEMBERS:,} members; split it")
                    return None
            offset = int(tar.offset)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        compressed = file.read_at(0, 2) in (b"\x1f\x8b", b"BZ") or file.read_at(0, 4) == b"\x28\xb5\x2f\xfd"
        cure = "; unpack it: only plain tar can be read at random" if compressed else ""
        broken.append(f"{' '.join(str(error).split())}{cure} ({file.size:,} bytes)")
        return None
    # tarfile takes a damaged header behind the first for the end, without a word.
    end = file.read_at(offset, BLOCK)
    if any(end):
        broken.append(f"no member begins at byte {offset:,}; what follows is lost")
        return None
    if len(end) < BLOCK:
        broken.append(f"it ends without an end mark at byte {offset:,}; members may be missing")
        return None
    return offset


def _next_archive(file: RangedFile, end: int, broken: list[str]) -> int | None:
    """Find another archive behind an end mark, as where two files were joined; None where nothing but zeros follows."""
    place = end
    while place < min(file.size, end + MAX_ZERO_BYTES):
        block = file.read_at(place, BLOCK)
        if any(block):
            try:
                tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
            except tarfile.HeaderError:
                broken.append(f"data that is no tar lies behind the end mark, from byte {place:,}")
                return None
            return place
        place += BLOCK
    return None
