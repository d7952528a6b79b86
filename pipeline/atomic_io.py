"""Atomic file writes: write to a temporary file next to the target, fsync, rename.

A reader sees either the old or the new content. All files of this package are written this way. Temporary files are
named ``.NAME.<32 hex digits>.tmp``, so that writers on several machines never share one, and are locked (``flock``)
while they are written, so that ``remove_stale`` can recognise those of dead processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from .errors import OutputError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


@contextmanager
def atomic_write(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that replaces ``path`` when the context exits without an error.

    Missing parent folders are created. After an error no file is left behind and an existing one is unchanged.

    Args:
        path: the target.
        durable: fsync the file before the rename and the folder after it; False for files that can be recreated and
            that are validated when read.

    Raises:
        OutputError: any ``OSError`` inside the context.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = create_locked(lambda: path.with_name(f".{path.name[:150]}.{uuid4().hex}.tmp"))
        try:
            with file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                else:
                    os.close(os.dup(file.fileno()))  # a full network file system reports its error here
                temporary.replace(path)  # still locked, so that remove_stale skips it
            if durable:
                _sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"expected to write {str(path)!r}, got {error.strerror or error}; free space, or choose a place that can be "
            "written"
        ) from error


def write_bytes(path: Path | str, data: bytes, *, durable: bool = True) -> None:
    """Write bytes with ``atomic_write``."""
    with atomic_write(path, durable=durable) as file:
        file.write(data)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    """Write text as UTF-8 with ``atomic_write``."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path | str, content: Any, *, indent: int | None = 2) -> None:
    """Write a value as strict JSON and a final newline with ``atomic_write``.

    Raises:
        ValueError: the value contains a number that is not finite.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Make a file available under another name, as a hard link where the file system has them; replaces ``target``.

    Raises:
        OutputError: the file cannot be written.
    """
    with suppress(OSError):
        if target.samefile(source):
            return
    aside = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
    try:
        os.link(source, aside)
    except OSError:
        with source.open("rb") as file, atomic_write(target) as copy:
            shutil.copyfileobj(file, copy)
        return
    rename(aside, target.name)


def rename(path: Path, name: str) -> None:
    """Rename a file within its folder and flush the folder; an existing file of that name is replaced.

    Raises:
        OSError: it cannot be renamed.
    """
    path.replace(path.with_name(name))
    _sync_folder(path.parent)


def remove_stale(folder: Path) -> int:
    """Delete temporary files of ``atomic_write`` left by dead processes; return their number.

    Only unlocked files that match the name pattern are deleted, and none on a file system without locks.
    """
    num_removed = 0
    for path in sorted(folder.glob(".*.tmp")):
        if not TEMPORARY.fullmatch(path.name):
            continue
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            num_removed += 1
    return num_removed


def create_locked(
    new_path: Callable[[], Path], opener: Callable[[str, int], int] | None = None
) -> tuple[Path, BinaryIO]:
    """Create a file with a lock that marks its writer as alive; the kernel releases it with the process.

    If another process deletes the file between creation and locking, a new one is created.

    Args:
        new_path: returns a path that does not exist.
        opener: as of ``open``.
    """
    while True:
        temporary = new_path()
        file = open(temporary, "xb", opener=opener)  # noqa: SIM115  (returned open)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        except OSError:  # a file system without locks, where nothing is deleted either
            return temporary, file
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()


def _sync_folder(folder: Path) -> None:
    """Fsync a folder, so that a rename in it is durable; ignored where the file system does not support it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
