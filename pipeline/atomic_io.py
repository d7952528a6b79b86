"""Write files whole: into a temporary file beside the target, flushed to disk, then renamed.

A reader sees the old content or the new one, never a part. Every writer of this package goes through here. Temporary
files are named ``.NAME.<32 hex digits>.tmp``, so that writers on several machines never share one, and are locked
(``flock``) while they are written, so that ``remove_stale`` can tell those of dead processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from .errors import OutputError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


@contextmanager
def atomic_write(path: Path | str, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name, whole, when the context ends without an error.

    Missing parent folders are made. After an error nothing is left behind, and an older file stays as it was.

    Args:
        path: the target.
        durable: flush to disk before the rename, and the folder after it; False for what can be made again and whose
            reader checks it.

    Raises:
        OutputError: the disk refused (any ``OSError`` while the context lasts).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, file = _create_locked(path)
        try:
            with file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                else:
                    os.close(os.dup(file.fileno()))  # here a network file system reports that it is full
                temporary.replace(path)  # still locked: nobody takes it for stale
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
    """Write bytes as ``atomic_write`` does."""
    with atomic_write(path, durable=durable) as file:
        file.write(data)


def write_text(path: Path | str, text: str, *, durable: bool = True) -> None:
    """Write text as UTF-8, as ``atomic_write`` does."""
    write_bytes(path, text.encode("utf-8"), durable=durable)


def write_json(path: Path | str, content: Any, *, indent: int | None = 2) -> None:
    """Write a value as strict JSON with a final newline, as ``atomic_write`` does.

    Raises:
        ValueError: a number in it is not finite, which JSON cannot hold.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def remove_stale(folder: Path) -> int:
    """Delete temporary files of ``atomic_write`` whose writer is dead; returns how many.

    Only files with its name pattern are considered, and none with a living writer. Files on a file system without locks
    stay.
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


def _create_locked(path: Path) -> tuple[Path, BinaryIO]:
    """Create the temporary file with its lock; ``remove_stale`` may win the moment between the two, then once more."""
    while True:
        temporary = path.with_name(f".{path.name[:150]}.{uuid4().hex}.tmp")
        file = temporary.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        except OSError:  # a file system without locks, where remove_stale deletes nothing either
            return temporary, file
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself; a file system that cannot sync folders has no more to offer."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
