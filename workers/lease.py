"""A lease on a URI: keeps a second run from writing where one does, as well as an object store allows.

The lease is an object that says who holds it and until when; its holder renews it while it lives. Limits: two runs that
start within the time of one request may both get it on a store without conditional writes, and clocks of machines must
agree to within some seconds. A run that was killed on another machine keeps the place for ``LEASE_S``.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from ..pipeline.errors import OutputError, RequestError
from ..pipeline.uris import public_uri

LEASE_NAME = ".lightwell.lease.json"
LEASE_S = 90.0
RENEW_S = 20.0


@contextmanager
def lease(filesystem: Any, root: str, uri: str) -> Iterator[None]:
    """Hold the lease of a URI while the context lasts.

    Args:
        filesystem: of fsspec.
        root: path of the URI on it.
        uri: named in errors.

    Raises:
        RequestError: another run holds it.
        OutputError: it cannot be written.
    """
    path, name = f"{root.rstrip('/')}/{LEASE_NAME}", uuid4().hex
    _check_free(_read(filesystem, path), uri)
    try:
        _write(filesystem, path, name)
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OutputError(
            f"--out: {public_uri(uri)} cannot be written ({reason}); check its name and your rights"
        ) from error
    found = _read(filesystem, path)
    if found is not None and found.get("name") != name:  # another run wrote it at the same moment
        _check_free(found, uri)
    ended = threading.Event()
    thread = threading.Thread(
        target=_renew, args=(filesystem, path, name, ended), name="lightwell-lease", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(Exception):  # it runs out by itself
            if (_read(filesystem, path) or {}).get("name") == name:
                filesystem.rm_file(path)


def _renew(filesystem: Any, path: str, name: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with suppress(Exception):  # tried again; an outage shows when results are copied
            _write(filesystem, path, name)


def _write(filesystem: Any, path: str, name: str) -> None:
    content = {
        "name": name,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "until": time.time() + LEASE_S,
    }
    with suppress(NotImplementedError):
        if "file" in str(filesystem.protocol) or "ftp" in str(filesystem.protocol):
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    filesystem.pipe_file(path, json.dumps(content).encode())


def _read(filesystem: Any, path: str) -> dict[str, Any] | None:
    """Read a lease; None where there is none, or one that cannot be understood."""
    try:
        found = json.loads(filesystem.cat_file(path, start=0, end=4096))
    except Exception:  # there is none, or the store does not answer: the write that follows tells which
        return None
    return found if isinstance(found, dict) else None


def _check_free(found: dict[str, Any] | None, uri: str) -> None:
    until = (found or {}).get("until")
    if found is None or not isinstance(until, int | float) or until < time.time() or _is_dead(found):
        return
    raise RequestError(
        f"--out {public_uri(uri)}: expected a place where no other run writes, got one that process {found.get('pid')} on "
        f"{str(found.get('host'))[:100]!r} is writing to; wait for it to end ({until - time.time():.0f} s after a kill), or "
        "choose another"
    )


def _is_dead(found: dict[str, Any]) -> bool:
    """Say whether the holder was a process of this machine that is no more."""
    pid = found.get("pid")
    if found.get("host") != socket.gethostname() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
