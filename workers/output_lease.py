"""Lease on a URI: prevents two runs from writing to the same place, as far as an object store allows.

The lease is an object with its holder and expiry time; the holder renews it while it runs. Limits: on a store without
conditional writes two runs that start within the time of one request may both get it, and the clocks of all machines must
agree to within a few seconds. After a kill on another machine the lease is held for up to ``LEASE_S``.
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

from ..pipeline.errors import OutputError
from ..pipeline.outputs.lock import holder_record, in_use_error
from ..pipeline.uris import public_uri

LEASE_NAME = ".lightwell.lease.json"
LEASE_S = 90.0
RENEW_S = 20.0


@contextmanager
def lease(filesystem: Any, root: str, uri: str) -> Iterator[None]:
    """Hold the lease of a URI for the duration of the context.

    Args:
        filesystem: an fsspec file system.
        root: path of the URI on it.
        uri: the URI, for error messages.

    Raises:
        RequestError: another run holds the lease.
        OutputError: the lease cannot be written.
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
    if found is not None and found.get("name") != name:  # written by another run at the same time
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
        with suppress(Exception):  # it expires by itself
            if (_read(filesystem, path) or {}).get("name") == name:
                filesystem.rm_file(path)


def _renew(filesystem: Any, path: str, name: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with suppress(Exception):  # retried; an outage surfaces when results are uploaded
            _write(filesystem, path, name)


def _write(filesystem: Any, path: str, name: str) -> None:
    content = {"name": name, **holder_record(), "until": time.time() + LEASE_S}
    with suppress(NotImplementedError):
        if "file" in str(filesystem.protocol) or "ftp" in str(filesystem.protocol):
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    filesystem.pipe_file(path, json.dumps(content).encode())


def _read(filesystem: Any, path: str) -> dict[str, Any] | None:
    """Read a lease; None if there is none or it is malformed."""
    try:
        found = json.loads(filesystem.cat_file(path, start=0, end=4096))
    except Exception:  # there is none, or the store is unreachable: the following write shows which
        return None
    return found if isinstance(found, dict) else None


def _check_free(found: dict[str, Any] | None, uri: str) -> None:
    until = (found or {}).get("until")
    if found is None or not isinstance(until, int | float) or until < time.time() or _is_dead(found):
        return
    seconds = until - time.time()
    raise in_use_error(f"--out {public_uri(uri)}", found, f" ({seconds:.0f} s after a kill)")


def _is_dead(found: dict[str, Any]) -> bool:
    """Return whether the holder was a process of this machine that has ended."""
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
