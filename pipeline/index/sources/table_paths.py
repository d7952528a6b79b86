"""Resolves the paths and URIs of a table to files and keys."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from dataclasses import dataclass
from typing import Any

from ...formats.headers import CANNOT_OPEN
from ...storage.local import is_remote, without_file_scheme
from ...storage.uri_rules import UriRules
from ...uris import public_uri
from .listing import as_text
from .remarks import Remarks

MAX_PATH_LENGTH = 4096
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_REFUSED = "cannot be used: "


@dataclass(frozen=True)
class ResolvedPath:
    """Location of the file of one row."""

    key: str
    uri: str
    """Absolute path or URI; without secrets if it is refused."""
    refusal: str | None = None
    """Error status of the row, if its file is not to be opened."""


@dataclass(frozen=True)
class PathResolver:
    """Resolves the paths of a table.

    Args:
        root: absolute folder or URI that relative paths refer to.
        rules: allowed URIs.
        remarks: counts paths that were corrected.
    """

    root: str
    rules: UriRules
    remarks: Remarks

    def resolve(self, cell: Any, row: int) -> ResolvedPath:
        """Resolve the path of a cell; an invalid one is refused.

        Args:
            cell: the path or URI.
            row: its row number, from 0, which serves as the key of a row without a path.
        """
        if not isinstance(cell, str) or not cell.strip():
            return ResolvedPath(f"(row {row})", "", f"{_REFUSED}no path in row {row} (from 0)")
        if len(cell) > MAX_PATH_LENGTH:
            short = f"{cell[:100]}~{_short_hash(cell)}"
            too_long = f"{_REFUSED}a path of {len(cell):,} characters, more than {MAX_PATH_LENGTH:,}"
            return ResolvedPath(_printable(short), _printable(short), too_long)
        if "\0" in cell:
            return ResolvedPath(_printable(cell), _printable(cell), f"{_REFUSED}a zero byte in its path")
        uri = self._join_root(cell)
        if is_remote(uri):
            public = public_uri(uri)
            key = self._make_key(public)
            if (reason := self.rules.refusal(uri)) is not None:
                return ResolvedPath(key, public, f"{_REFUSED}{reason}")
            return ResolvedPath(f"{key}?{_short_hash(uri)}" if public != uri else key, uri)
        return self._resolve_local(cell, uri)

    def resolve_mask(self, cell: Any, row: int) -> tuple[str | None, str | None]:
        """Return the path of a row's mask and why it is refused; None for both without a mask."""
        if cell is None or cell != cell or not str(cell).strip():  # noqa: PLR0124 - NaN
            return None, None
        resolved = self.resolve(str(cell), row)
        return (
            (resolved.uri, None)
            if resolved.refusal is None
            else (None, f"mask {resolved.uri}: {resolved.refusal}")
        )

    def _join_root(self, text: str) -> str:
        text = without_file_scheme(text)
        if is_remote(text):
            return text
        if is_remote(self.root):
            if "\\" in text:
                self.remarks.add("converted", "backslashes of paths to slashes", text)
            return f"{self.root}/{posixpath.normpath(text.replace(chr(92), '/'))}"
        return os.path.normpath(os.path.join(self.root, text))  # noqa: PTH118

    def _resolve_local(self, cell: str, uri: str) -> ResolvedPath:
        """Resolve a local path; if there is no such file, try with slashes for backslashes and without surrounding spaces."""
        if not ("\\" in cell or cell != cell.strip() or _DRIVE.match(cell)) or os.path.exists(uri):  # noqa: PTH110
            return ResolvedPath(self._make_key(uri), uri)
        for what, text in (
            ("backslashes of paths to slashes", cell.replace("\\", "/")),
            ("paths with spaces around them", cell.strip()),
            ("paths with spaces around them and backslashes", cell.strip().replace("\\", "/")),
        ):
            candidate = self._join_root(text)
            if text != cell and not is_remote(candidate) and os.path.exists(candidate):  # noqa: PTH110
                self.remarks.add("converted", what, cell)
                return ResolvedPath(self._make_key(candidate), candidate)
        reason = f"{CANNOT_OPEN}file not found"
        if _DRIVE.match(cell):
            reason += "; it is a path of Windows with a drive: write paths below the root, with slashes"
        elif "\\" in cell:
            reason += "; it has backslashes as on Windows, and there is none with slashes either"
        return ResolvedPath(self._make_key(uri), uri, reason)

    def _make_key(self, uri: str) -> str:
        return _printable(uri.removeprefix(f"{self.root.rstrip('/')}/"))


def _printable(text: str) -> str:
    """Escape bytes that a table cannot store: zero bytes, and what is not UTF-8."""
    return as_text(text).replace("\0", "\\0")


def _short_hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
