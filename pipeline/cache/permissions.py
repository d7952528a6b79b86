"""Permissions and file names of a cache.

A cache is private to its user unless the plan says ``shared``: its folders are created with mode 0700, and a folder that
belongs to another user or is writable by others is rejected. Only files with names of this package's format are
considered; links are neither followed nor deleted. Root counts as the user, as it may change everything anyway.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import PlanError

RECIPE_FILE = "recipe.json"
SUFFIX = ".arrow"
PART = ".part"
_RECIPE_NAME = re.compile(r"[0-9a-f]{16}")
_SHARD_NAME = re.compile(rf"[0-9a-f]{{32}}{re.escape(SUFFIX)}")
_PART_NAME = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(PART)}")
PRIVATE_MODE = 0o700
FILE_MODE = 0o644
"""Mode of shards, minus the umask: no other user can modify one in place, not even in a shared cache."""
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class ForeignFileError(OSError):
    """A file belongs to another user, is writable by others, or is not a regular file."""


def make_folders(root: Path, recipe: Path, *, shared: bool) -> None:
    """Create the folders of a cache and of a recipe in it if missing, and check their permissions.

    Args:
        root: folder of the cache; may be a link.
        recipe: folder of the recipe; not a link.
        shared: create them with the umask's mode, and accept folders writable by others.

    Raises:
        PlanError: other users own them or may write to them.
        OSError: one cannot be created or is not a folder.
    """
    for folder in (root, recipe):
        if shared:
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
            check_private(folder)
    if recipe.is_symlink():
        raise PlanError(
            f"cache.dir: expected a folder, got the link {str(recipe)!r}; remove it, or choose another folder"
        )


def check_private(folder: Path) -> None:
    """Check that a folder, and a link to it, belongs to this user and is not writable by others.

    Raises:
        PlanError: it belongs to another user or is writable by others.
        OSError: its status cannot be read.
    """
    status = folder.lstat()
    problem = ownership_problem(status, is_link=folder.is_symlink())
    if not problem:
        status = folder.stat()
        problem = ownership_problem(status)
    if problem:
        cure = "choose another folder"
        if status.st_uid == os.geteuid():
            cure = f"run `chmod go-w {shlex.quote(str(folder))}`"
        raise PlanError(
            f"cache.dir: expected a folder that only you may write, got {str(folder)!r}, which {problem}; {cure}, or set "
            "`shared: true` below `cache` if you trust all who may write to it"
        )


def ownership_problem(status: os.stat_result, *, is_link: bool = False) -> str:
    """Return why a file is not exclusively this user's; empty if it is. The mode of a link is ignored."""
    if status.st_uid not in (os.geteuid(), 0):
        return f"belongs to the user {status.st_uid}"
    if status.st_mode & OTHERS_WRITE and not is_link:
        return f"its group or others may write (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


@contextmanager
def open_regular_file(path: Path, *, shared: bool) -> Iterator[int]:
    """Open a regular file for reading, as a descriptor, without following links or blocking on pipes.

    Raises:
        ForeignFileError: it is a link or not a regular file or, unless ``shared``, not exclusively this user's.
        OSError: it does not exist or cannot be read.
    """
    if path.is_symlink():
        raise ForeignFileError(f"{path.name}: a link")
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ForeignFileError(f"{path.name}: no regular file")
        if not shared and (problem := ownership_problem(status)):
            raise ForeignFileError(f"{path.name}: {problem}")
        yield descriptor
    finally:
        os.close(descriptor)


def recipe_folders(root: Path) -> list[Path]:
    """Return the recipe folders of a cache, sorted."""
    return [
        Path(entry.path)
        for entry in _entries(root, _RECIPE_NAME)
        if entry.is_dir(follow_symlinks=False) and is_regular(Path(entry.path, RECIPE_FILE))
    ]


def shards_in(folder: Path) -> list[Path]:
    """Return the finished shards of a recipe, sorted."""
    return _files(folder, _SHARD_NAME)


def partial_shards_in(folder: Path) -> list[Path]:
    """Return the shards of a recipe that are being written or were left by a dead writer, sorted."""
    return _files(folder, _PART_NAME)


def folder_bytes(root: Path) -> int:
    """Return the total bytes of all shards of a cache."""
    total = 0
    for folder in recipe_folders(root):
        for path in shards_in(folder):
            with suppress(FileNotFoundError):
                total += path.lstat().st_size
    return total


def is_regular(path: Path) -> bool:
    """Return whether a path is a regular file, not a link."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _files(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder, pattern) if entry.is_file(follow_symlinks=False)]


def _entries(folder: Path, pattern: re.Pattern[str]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if pattern.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda entry: entry.name)
