"""Folders as they were found, on a disk or behind a URI."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError, nearest
from .store import Found

SIDE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xml", ".yaml", ".yml"})
"""Files of these names lie beside images (tables, annotations, an index); they are counted, not indexed."""


@dataclass(eq=False)
class Folder:
    """One directory as it was found; side files are only counted."""

    path: str
    files: list[str] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    num_side_files: int = 0
    found: Mapping[str, Found] = field(default_factory=dict)
    """At the top of a remote tree: what its listing told of each file."""

    @property
    def name(self) -> str:
        """Last part of the path; names that are not UTF-8 stay as they are."""
        return os.path.basename(self.path)  # noqa: PTH119

    def walk(self) -> Iterator[str]:
        """All files below, in a stable order."""
        yield from self.files
        for folder in self.folders:
            yield from folder.walk()

    def holds_files(self) -> bool:
        """Say whether there is any file below."""
        return next(self.walk(), None) is not None

    def side_files(self) -> int:
        """Count the side files here and below."""
        return self.num_side_files + sum(folder.side_files() for folder in self.folders)

    def below(self, path: str) -> str:
        """Name a file of this tree from here."""
        return path[len(self.path) :].lstrip("/")


def scan_folder(root: str) -> Folder:
    """Find what a local folder holds; hidden names are passed over, links are followed but not in circles.

    Raises:
        SourceError: a folder cannot be read.
    """
    return _scan(os.path.abspath(root), ())  # noqa: PTH100 - links stay as the user wrote them


def tree_of(root: str, found: Mapping[str, Found]) -> Folder:
    """Make the tree of a remote folder from a flat listing of URIs."""
    top = Folder(root.rstrip("/"), found=found)
    folders = {"": top}
    for uri in sorted(found, key=lambda uri: uri.split("/")):
        parts = top.below(uri).split("/")
        if uri.endswith("/") or any(part.startswith(".") for part in parts):
            continue
        above = top
        for number in range(1, len(parts)):
            name = "/".join(parts[:number])
            if name not in folders:
                folders[name] = Folder(f"{top.path}/{name}")
                above.folders.append(folders[name])
            above = folders[name]
        _take(above, uri)
    return top


def _scan(path: str, above: tuple[tuple[int, int], ...]) -> Folder:
    folder = Folder(path)
    try:
        status = os.stat(path)  # noqa: PTH116
        here = (status.st_dev, status.st_ino)
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(
            f"wanted a readable folder, got {path!r} ({error.strerror}); {_cure(path)}".rstrip("; ")
        ) from error
    if here in above:
        return folder  # a link that leads back up
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():  # noqa: PTH112 - a loop of links
            folder.folders.append(_scan(entry.path, (*above, here)))
        else:
            _take(folder, entry.path)
    return folder


def _take(folder: Folder, path: str) -> None:
    if os.path.splitext(path)[1].lower() in SIDE_SUFFIXES:  # noqa: PTH122
        folder.num_side_files += 1
    else:
        folder.files.append(path)


def _cure(path: str) -> str:
    wrong = Path(path)
    if wrong.exists():
        return "change its permissions"
    siblings = [item.name for item in wrong.parent.iterdir()] if wrong.parent.is_dir() else []
    return nearest(wrong.name, siblings) or "check the path"
