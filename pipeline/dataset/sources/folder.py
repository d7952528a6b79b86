"""Folders: class folders, with or without a train/val/test level above them, and flat folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError
from ..splits import canonical_split
from .listing import Listing, as_text
from .tree import Folder, scan_folder


@dataclass
class _Found:
    """Samples as they are collected: path, class or None, split or None."""

    samples: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    outside: list[str] = field(default_factory=list)


def list_folder(root: Path) -> Listing:
    """List the files of a local folder, as ``list_tree`` does.

    Raises:
        SourceError: there is no such folder, it cannot be read or it holds no file.
    """
    return list_tree(scan_folder(str(root)))


def list_tree(top: Folder) -> Listing:
    """List the files of a folder and tell its layout: class folders, split folders or flat.

    * ``root/cat/1.jpg``: class folders; what lies deeper belongs to the class too.
    * ``root/train/cat/1.jpg``: the same below split folders (train, val, test and their usual spellings). One
      split name among other folders is a class (``train``, ``bus``) unless it holds folders itself.
    * ``root/1.jpg`` or ``root/train/1.jpg``: no labels.

    Classes are sorted as text, as torchvision's ImageFolder does. Hidden files and folders are skipped, links
    are followed. Files beside the class folders are left out and named in the notes.

    Raises:
        SourceError: it holds no file.
    """
    if not top.holds_files():
        raise SourceError(
            f"wanted a folder with images, got {top.path!r} with no files in it; check the path"
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


def _split_folders(top: Folder) -> list[Folder]:
    named = [folder for folder in top.folders if canonical_split(folder.name)]
    if len({canonical_split(folder.name) for folder in named}) >= 2:
        return named
    others = any(folder.holds_files() for folder in top.folders if folder not in named)
    return named if not others or any(folder.folders for folder in named) else []


def _collect(folder: Folder, split: str | None, found: _Found) -> None:
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


def _listing(top: Folder, found: _Found, *, has_splits: bool) -> Listing:
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
        root=top.path,
        keys=[top.below(path) for path, _, _ in found.samples],
        uris=[path for path, _, _ in found.samples],
        labels=[-1 if name is None else numbers[name] for _, name, _ in found.samples],
        classes=classes,
        splits=[split for _, _, split in found.samples] if has_splits else None,
        found=[top.found[path] for path, _, _ in found.samples] if top.found else None,
        notes={
            "empty_classes": [name for name in classes if name not in filled],
            "outside": [as_text(top.below(path)) for path in found.outside[:5]],
            "num_outside": len(found.outside),
            "num_side_files": top.side_files(),
        },
    )
