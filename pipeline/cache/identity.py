"""Which version of which file a row of the index is: the key of what is cached for it."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileType, LocalFileSystem

CONTENT = "content_hash"
"""The column of an index that keeps content hashes, where it does."""
KEY_BYTES = 16


class EntryKeys:
    """Hashes rows of an index to 128 bits when they are first asked for. Any thread may ask.

    A row is known by the hash of its file's content where the index keeps one: then copies and moved files share.
    Else by uri, size and modification time as they were indexed.

    Args:
        table: of the index.
        recipe: fingerprint of how pixels are made; part of every key.
    """

    def __init__(self, table: pa.Table, recipe: str) -> None:
        names = [*filter(table.column_names.__contains__, (CONTENT, "uri", "bytes", "mtime_ns"))]
        self._table = table.select(names).combine_chunks()
        self._recipe = recipe
        self._keys = np.zeros((len(table), 2), "<u8")
        self._known = np.zeros(len(table), bool)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Return the keys of some rows, shape (n, 2), little-endian halves."""
        new = rows[~self._known[rows]]
        if len(new):
            hashed = b"".join(map(self._hash, self._table.take(new).to_pylist()))
            self._keys[new] = np.frombuffer(hashed, "<u8").reshape(-1, 2)
            self._known[new] = True  # last: another thread that sees it finds the keys in their place
        return np.asarray(self._keys[rows])

    def _hash(self, row: dict[str, str | int | None]) -> bytes:
        content = row.get(CONTENT)
        version = f"{row['uri']}\0{row['bytes']}\0{row['mtime_ns']}" if content is None else f"\1{content}"
        text = f"{self._recipe}\0{version}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


class Unchanged:
    """Says which files still are as they were indexed, by size and modification time. Any thread may ask."""

    def __init__(self, table: pa.Table) -> None:
        self._uris = table["uri"].combine_chunks()
        self._bytes = table["bytes"].to_numpy()
        self._mtimes_ns = table["mtime_ns"].to_numpy()
        self._files = LocalFileSystem()

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Look at the files of some rows, in one call: the interpreter's lock is let go once, not once for each.

        Returns:
            bool, shape (n,). Files of remote sources are taken as they were indexed.
        """
        uris = self._uris.take(pa.array(rows)).to_pylist()
        local = [i for i, uri in enumerate(uris) if "://" not in uri]
        same = np.ones(len(rows), bool)
        try:
            found = self._files.get_file_info([uris[i] for i in local])
        except (OSError, ValueError):  # one may not be looked at; reading it will say which and why
            same[local] = False
            return same
        for i, info in zip(local, found, strict=True):
            row = rows[i]
            same[i] = (
                info.type == FileType.File
                and info.size == self._bytes[row]
                and info.mtime_ns == self._mtimes_ns[row]
            )
        return same
