"""Reads from wherever a URI points: from the local disk directly, from anywhere else through fsspec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .store import FileStat, LocalStore, ReadResult, is_remote
from .uri_rules import UriRules

if TYPE_CHECKING:
    from .remote import RemoteStore

DEFAULT_MAX_WAIT_S = 30.0


class Storage:
    """The store of all URIs; fsspec is loaded when the first remote one comes. Any thread may call it.

    Args:
        max_wait_s: how long a remote source may give no answer.
        rules: remote URIs that may be opened; by default those of the environment.
    """

    def __init__(self, max_wait_s: float = DEFAULT_MAX_WAIT_S, rules: UriRules | None = None) -> None:
        self._local = LocalStore()
        self.max_wait_s = max_wait_s
        self.rules = rules or UriRules.from_env()
        self._remote: RemoteStore | None = None

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:
        """Read a part of a file, as ``Store.read`` says."""
        if is_remote(uri):
            return self.remote().read(uri, offset, size, expected=expected)
        return self._local.read(uri, offset, size)

    def stat(self, uri: str) -> FileStat:
        """Ask for size and identity of a file, as ``Store.stat`` says."""
        return self.remote().stat(uri) if is_remote(uri) else self._local.stat(uri)

    def remote(self) -> RemoteStore:
        """Return the store of remote files."""
        if self._remote is None:
            from .remote import RemoteStore

            self._remote = RemoteStore(self.max_wait_s, self.rules)
        return self._remote

    def close(self) -> None:
        """Let go of connections."""
        if self._remote is not None:
            self._remote.close()
