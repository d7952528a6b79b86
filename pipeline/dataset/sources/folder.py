"""Folders: class folders, with or without a train/val/test level above them, and flat folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError, nearest
from ..splits import canonical_split
from .listing import Listing, as_text

SIDE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet", ".json", ".jsonl", ".xml", ".yaml", ".yml"})
"""Files of these names lie beside images (tables, annotations, an index); they are counted, not indexed."""


@dataclass(eq=False)
class _Folder:
    """One directory as it was found; side files are only counted."""

    path: str
    files: list[str] = field(default_factory=list)
    folders: list[_Folder] = field(default_factory=list)
    num_side_files: int = 0

    @property
    def name(self) -> str:
        return os.path.basename(self.path)  # noqa: PTH119 - keeps names that are not UTF-8 as they are

    def walk(self) -> Iterator[str]:
        """All files below, in a stable order."""
        yield from self.files
        for folder in self.folders:
            yield from folder.walk()

    def holds_files(self) -> bool:
        return next(self.walk(), None) is not None

    def side_files(self) -> int:
        return self.num_side_files + sum(folder.side_files() for folder in self.folders)


@dataclass
class _Found:
    """Samples as they are collected: path, class or None, split or None."""

    samples: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """List the files of a folder and tell its layout: class folders, split folders or flat.

    * ``root/cat/1.jpg``: class folders; what lies deeper belongs to the class too.
    * ``root/train/cat/1.jpg``: the same below split folders (train, val, test and their usual spellings). One
      split name among other folders is a class (``train``, ``bus``) unless it holds folders itself.
    * ``root/1.jpg`` or ``root/train/1.jpg``: no labels.

    Classes are sorted as text, as torchvision's ImageFolder does. Hidden files and folders are skipped, links
    are followed. Files beside the class folders are left out and named in the notes.

    Raises:
        SourceError: there is no such folder, it cannot be read or it holds no file.
    """
    top = _scan(os.path.abspath(root), ())  # noqa: PTH100 - links stay as the user wrote them
    if not top.holds_files():
        raise SourceError(
            f"wanted a folder with images, got {str(root)!r} with no files in it; check the path"
            " (hidden files, tables and annotations do not count)"
        )
    found = _Found()
    splits = _split_folders(top)
    if splits:
        for folder in splits:
            _collect(folder, canonical_split(folder.name), found)
        found.outside += top.files
        found.outside += [path for folder in top.folders if folder not in splits for path in folder.walk()]
    else:
        _collect(top, None, found)
    return _listing(top, found, has_splits=bool(splits))


def _scan(path: str, above: tuple[tuple[int, int], ...]) -> _Folder:
    folder = _Folder(path)
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
        elif os.path.splitext(entry.name)[1].lower() in SIDE_SUFFIXES:  # noqa: PTH122
            folder.num_side_files += 1
        else:
            folder.files.append(entry.path)
    return folder


def _cure(path: str) -> str:
    wrong = Path(path)
    if wrong.exists():
        return "change its permissions"
    siblings = [item.name for item in wrong.parent.iterdir()] if wrong.parent.is_dir() else []
    return nearest(wrong.name, siblings) or "check the path"


def _split_folders(top: _Folder) -> list[_Folder]:
    named = [folder for folder in top.folders if canonical_split(folder.name)]
    if len({canonical_split(folder.name) for folder in named}) >= 2:
        return named
    others = any(folder.holds_files() for folder in top.folders if folder not in named)
    return named if not others or any(folder.folders for folder in named) else []


def _collect(folder: _Folder, split: str | None, found: _Found) -> None:
    """Take a folder's class folders, or its files where it has none."""
    if not any(inner.holds_files() for inner in folder.folders):
        found.samples += [(path, None, split) for path in folder.files]
        if folder.files:
            return
    else:
        found.outside += folder.files
    for inner in folder.folders:
        if not inner.holds_files() and inner.side_files():
            continue  # annotations, not a class that lacks images
        found.classes.add(as_text(inner.name))
        found.samples += [(path, as_text(inner.name), split) for path in inner.walk()]


def _listing(top: _Folder, found: _Found, *, has_splits: bool) -> Listing:
    if not found.samples:
        raise SourceError(
            f"wanted class folders with images, got {top.path!r} with files only beside them;"
            " move the images into the class folders"
        )
    classes = tuple(sorted(found.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    filled = {name for _, name, _ in found.samples}
    return Listing(
        kind="folder" if classes else "flat",
        root=Path(top.path),
        keys=[_below(path, top) for path, _, _ in found.samples],
        uris=[path for path, _, _ in found.samples],
        labels=[-1 if name is None else numbers[name] for _, name, _ in found.samples],
        classes=classes,
        splits=[split for _, _, split in found.samples] if has_splits else None,
        notes={
            "empty_classes": [name for name in classes if name not in filled],
            "outside": [as_text(_below(path, top)) for path in found.outside[:5]],
            "num_outside": len(found.outside),
            "num_side_files": top.side_files(),
        },
    )


def _below(path: str, top: _Folder) -> str:
    return path[len(top.path) :].lstrip("/")
