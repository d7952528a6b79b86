"""Exclusive file lock (``flock``), which the kernel releases when the process ends or is killed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import RequestError

_log = logging.getLogger(__name__)


@contextmanager
def exclusive_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold a lock on the file at ``path`` within the context; the file is deleted at its end.

    On a file system without locks a warning is logged instead. On network file systems the lock works across machines if
    the mount supports ``flock``, such as NFS version 4.

    Args:
        path: the lock file, in an existing folder.
        what: name of the resource for errors, such as ``--out 'runs/a'``.

    Raises:
        RequestError: another process holds the lock.
        OSError: the file cannot be created.
    """
    handle = _acquire(path, what)
    try:
        yield
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)  # before the lock is released
            os.close(handle)


def _acquire(path: Path, what: str) -> int | None:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            record = _read_record(handle)
            os.close(handle)
            raise in_use_error(what, record) from error
        except OSError as error:
            os.close(handle)
            path.unlink(missing_ok=True)
            _log.warning(
                "%s: its file system has no locks (%s); do not start two runs there at a time", what, error
            )
            return None
        if _is_same_file(path, handle):
            os.ftruncate(handle, 0)
            since = datetime.now(UTC).isoformat(timespec="seconds")
            os.pwrite(handle, json.dumps({**holder_record(), "since": since}).encode(), 0)
            return handle
        os.close(handle)  # its holder deleted the file between open and lock


def _is_same_file(path: Path, handle: int) -> bool:
    """Return whether the path still refers to the open file."""
    try:
        found, opened = path.lstat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _read_record(handle: int) -> Any:
    """Read the record of a lock's holder; None if it has not written it yet."""
    try:
        return json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None


def holder_record() -> dict[str, Any]:
    """Describe this process, for the errors of others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def in_use_error(what: str, record: Any, until: str = "") -> RequestError:
    """Return the error for a place to which another run writes.

    Args:
        what: name of the place, such as ``--out 'runs/a'``.
        record: ``holder_record`` of that run, maybe with the time since when; anything else is not shown.
        until: when it is free after a kill, such as `` (20 s after a kill)``.
    """
    try:
        holder = f"process {int(record['pid'])} on {str(record['host'])[:100]!r}"
        holder += f" (since {str(record['since'])[:40]})" if "since" in record else ""
    except (ValueError, KeyError, TypeError):
        holder = "another process"
    return RequestError(
        f"{what}: expected a place where no other run writes, got one that {holder} is writing to; wait for it to end"
        f"{until}, or choose another"
    )
