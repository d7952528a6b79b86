"""Cache keys: hashes of recipe and file version of index rows."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.fs import LocalFileSystem

from ..index.mmap_index import ChunkedTable

HASH_COLUMN = "hash"
"""Index column of content hashes, if present."""
SAMPLE_COLUMN = "key"
VERSION_COLUMNS = ("uri", "offset", "bytes", "mtime_ns", "etag")
"""Columns that identify a file version without a hash; an index without shards or remote files may lack some."""
KEY_BYTES = 16
UNKNOWN = -1


class CacheKeys:
    """128-bit cache keys of index rows, computed on first use. Thread-safe.

    A key is made from the content hash if the index has one, so that copies and moved files share cached images;
    otherwise from location, size and modification time or ETag, as indexed.

    Args:
        table: of the index.
        recipe: fingerprint of the recipe, part of every key.
        by_sample: make the sample's own key a part too, for images whose random augmentation it determines.
    """

    def __init__(self, table: pa.Table, recipe: str, *, by_sample: bool = False) -> None:
        names = [*filter(table.column_names.__contains__, (HASH_COLUMN, *VERSION_COLUMNS))]
        names += [SAMPLE_COLUMN] if by_sample else []
        self._table = ChunkedTable(table.select(names))
        self._recipe = recipe
        self._keys = np.zeros((len(table), 2), "<u8")
        self._is_computed = np.zeros(len(table), bool)

    def for_rows(self, rows: np.ndarray) -> np.ndarray:
        """Return the keys of some rows, shape (n, 2), little-endian halves."""
        new = rows[~self._is_computed[rows]]
        if len(new):
            hashed = b"".join(map(self._hash, self._table.take(new).to_pylist()))
            self._keys[new] = np.frombuffer(hashed, "<u8").reshape(-1, 2)
            self._is_computed[new] = True  # last, so that other threads see complete keys
        return np.asarray(self._keys[rows])

    def _hash(self, row: dict[str, str | int | None]) -> bytes:
        content = row.get(HASH_COLUMN)
        place = "\0".join(str(row.get(name)) for name in VERSION_COLUMNS)
        version = place if content is None else f"\1{content}"
        sample = f"\2{row[SAMPLE_COLUMN]}" if SAMPLE_COLUMN in row else ""
        text = f"{self._recipe}\0{version}{sample}".encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()


class FileVersions:
    """Checks whether files are unchanged since indexing, by size and modification time. Thread-safe."""

    def __init__(self, table: pa.Table) -> None:
        names = [*filter(table.column_names.__contains__, ("uri", "mtime_ns", "bytes", "offset"))]
        self._table = ChunkedTable(table.select(names))
        self._files = LocalFileSystem()

    def are_current(self, rows: np.ndarray) -> np.ndarray:
        """Check the files of some rows in one call, which releases the GIL once, not once per file.

        Returns:
            bool, shape (n,). Remote files are assumed unchanged.
        """
        table = self._table.take(rows)
        uris = table["uri"].to_pylist()
        local = [i for i, uri in enumerate(uris) if "://" not in uri]
        same = np.ones(len(rows), bool)
        try:
            found = self._files.get_file_info([uris[i] for i in local])
        except (OSError, ValueError):  # reading the files will report which one and why
            same[local] = False
            return same
        inside = _integers(table, "offset")[local] >= 0  # in a tar shard, whose own size is not indexed
        sizes = np.array([UNKNOWN if info.size is None else info.size for info in found], np.int64)
        times = np.array([UNKNOWN if info.mtime_ns is None else info.mtime_ns for info in found], np.int64)
        expected = np.where(inside, UNKNOWN, _integers(table, "bytes")[local])
        same_size = (expected == sizes) | ((expected == UNKNOWN) & (sizes != UNKNOWN))
        same[local] = same_size & (times == _integers(table, "mtime_ns")[local])
        return same


def _integers(table: pa.Table, name: str) -> np.ndarray:
    """Return a column, ``UNKNOWN`` where it is null or missing."""
    if name not in table.column_names:
        return np.full(len(table), UNKNOWN)
    return np.asarray(pc.fill_null(table[name], UNKNOWN).to_numpy())
