"""Reads files by path or URI: local ones directly, remote ones through fsspec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .local import FileStat, LocalStore, ReadResult, is_remote
from .uri_rules import UriRules

if TYPE_CHECKING:
    from .remote import RemoteStore

DEFAULT_MAX_WAIT_S = 30.0


class Storage:
    """Access to local and remote files; fsspec is imported at the first remote URI. Thread-safe.

    Args:
        max_wait_s: seconds without a response after which a remote source counts as unavailable.
        rules: allowed remote URIs; by default from the environment.
    """

    def __init__(self, max_wait_s: float = DEFAULT_MAX_WAIT_S, rules: UriRules | None = None) -> None:
        self._local = LocalStore()
        self.max_wait_s = max_wait_s
        self.rules = rules or UriRules.from_env()
        self._remote: RemoteStore | None = None

    def read(self, uri: str, offset: int, size: int, *, expected: int = 0) -> ReadResult:
        """Read a byte range of a file; see ``Store.read``."""
        if is_remote(uri):
            return self.remote().read(uri, offset, size, expected=expected)
        return self._local.read(uri, offset, size)

    def stat(self, uri: str) -> FileStat:
        """Return size, modification time and ETag of a file; see ``Store.stat``."""
        return self.remote().stat(uri) if is_remote(uri) else self._local.stat(uri)

    def remote(self) -> RemoteStore:
        """Return the store for remote files."""
        if self._remote is None:
            from .remote import RemoteStore

            self._remote = RemoteStore(self.max_wait_s, self.rules)
        return self._remote

    def close(self) -> None:
        """Close connections."""
        if self._remote is not None:
            self._remote.close()
