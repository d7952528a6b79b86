"""Directory trees, from a local disk or from a remote listing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError, did_you_mean
from ...storage.local import FileStat
from .junk import JUNK, junk_kind, side_kind
from .remarks import Remarks

MAX_DEPTH = 100
"""Deeper folders are left out."""


@dataclass(eq=False)
class Folder:
    """A directory with its files and subfolders; non-image files are only counted."""

    path: str
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    num_side_files: int = 0
    file_stats: Mapping[str, FileStat] = field(default_factory=dict)
    """At the root of a remote tree: the stat of each file, by URI."""
    remarks: Remarks = field(default_factory=Remarks)
    """At the root: counts what was left out of the whole tree."""

    @property
    def name(self) -> str:
        """Last part of the path, unescaped if it is not UTF-8."""
        return os.path.basename(self.path)  # noqa: PTH119

    def walk(self) -> Iterator[str]:
        """Yield all files below, in a stable order."""
        yield from self.files
        for folder in self.folders:
            yield from folder.walk()

    def has_files(self) -> bool:
        """Return whether there is any file below."""
        return next(self.walk(), None) is not None

    def side_files(self) -> int:
        """Count the non-image files in this folder and below."""
        return self.num_side_files + sum(folder.side_files() for folder in self.folders)

    def below(self, path: str) -> str:
        """Return the path of a file relative to this folder."""
        return path[len(self.path) :].lstrip("/")


def scan_folder(root: str) -> Folder:
    """Scan a local folder recursively.

    Hidden names and junk are left out and counted. Links are followed; a folder that is reached repeatedly, such as by
    cyclic links, is listed once: under its own path if it is in the tree, else under the link nearest to the root.

    Raises:
        SourceError: a folder cannot be read.
    """
    return _FolderScan(os.path.abspath(root)).run()  # noqa: PTH100 - keeps links


class _FolderScan:
    """Scan of one local directory tree."""

    def __init__(self, root: str) -> None:
        self._top = Folder(root)
        self._visited: set[tuple[int, int]] = set()
        self._links: deque[tuple[Folder, str, int]] = deque()

    def run(self) -> Folder:
        """Scan the real folders first, then the links, breadth-first."""
        self._scan(self._top, 0)
        while self._links:
            parent, path, depth = self._links.popleft()
            folder = Folder(path)
            if self._scan(folder, depth):
                parent.folders.append(folder)
                parent.folders.sort(key=lambda one: one.path)
        return self._top

    def _scan(self, folder: Folder, depth: int) -> bool:
        """Fill a folder; return False if it was scanned before, is too deep or was deleted meanwhile."""
        path = folder.path
        if depth > MAX_DEPTH:
            self._leave_out(f"folders below {MAX_DEPTH} others", path)
            return False
        try:
            status = os.stat(path)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in self._visited:
                self._leave_out("links to folders that are listed already", path)
                return False
            self._visited.add(identity)
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            if depth and isinstance(error, FileNotFoundError):
                self._leave_out("folders that were deleted while they were listed", path)
                return False
            raise SourceError(
                f"expected a readable folder, got {path!r} ({error.strerror}); {_hint(path)}".rstrip("; ")
            ) from error
        for entry in entries:
            if kind := junk_kind(entry.name):
                self._leave_out(kind, entry.path)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 - a loop of links
                self._links.append((folder, entry.path, depth + 1))
            elif entry.is_dir(follow_symlinks=False):
                inner = Folder(entry.path)
                if self._scan(inner, depth + 1):
                    folder.folders.append(inner)
            else:
                _add_file(folder, entry.path, self._top)
        return True

    def _leave_out(self, what: str, path: str) -> None:
        self._top.remarks.add("left_out", what, self._top.below(path))


def folder_from_listing(root: str, file_stats: Mapping[str, FileStat]) -> Folder:
    """Build the tree of a remote folder from a flat listing of URIs."""
    top = Folder(root.rstrip("/"), file_stats=file_stats)
    folders = {"": top}
    junk: set[str] = set()
    for uri in sorted(file_stats, key=lambda uri: uri.split("/")):
        parts = top.below(uri).split("/")
        if uri.endswith("/"):
            continue
        if len(parts) > MAX_DEPTH:
            top.remarks.add("left_out", f"files below {MAX_DEPTH} folders", "/".join(parts))
            continue
        number, kind = next(
            ((n, kind) for n, part in enumerate(parts, 1) if (kind := junk_kind(part))), (0, None)
        )
        if kind is not None:
            name = "/".join(parts[:number])
            if name not in junk:
                junk.add(name)
                top.remarks.add("left_out", kind, name)
            continue
        parent = top
        for number in range(1, len(parts)):
            name = "/".join(parts[:number])
            if name not in folders:
                folders[name] = Folder(f"{top.path}/{name}")
                parent.folders.append(folders[name])
            parent = folders[name]
        _add_file(parent, uri, top)
    return top


def _add_file(folder: Folder, path: str, top: Folder) -> None:
    kind = side_kind(os.path.basename(path))  # noqa: PTH119
    if kind is None:
        folder.files.append(path)
        return
    if kind != JUNK:
        folder.num_side_files += 1
    top.remarks.add("left_out", kind, top.below(path))


def _hint(path: str) -> str:
    wrong = Path(path)
    if wrong.exists():
        return "change its permissions"
    siblings = [item.name for item in wrong.parent.iterdir()] if wrong.parent.is_dir() else []
    return did_you_mean(wrong.name, siblings) or "check the path"
