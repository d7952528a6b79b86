"""A large index as an Arrow file beside its Parquet: mapped into memory, one copy for all processes of a machine.

::

    index.parquet                 what `lightwell index` wrote
    .index.parquet.arrow          the same rows, as they lie in memory; made by the first who opens it
    .index.parquet.arrow.json     which Parquet it was made of, and the digest of its rows

Only the pages of rows that somebody reads are in memory, and the system may drop them. Both are written aside, then
renamed, the Arrow file first: it counts only where the other one names it, and the Parquet that is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..atomic_io import atomic_write, remove_stale, write_json
from ..errors import OutputError
from .digest import digest_of

MMAP_MIN_ROWS = 1_000_000
"""An index of fewer rows, some 230 MB, is held by every process."""
CHUNK_ROWS = 1 << 22
"""Rows that lie together; while the file is made, so many are in memory."""
FOOTER_BYTES = 1 << 16
_NAME = b"lightwell.mapped"
RESOLVED = b"lightwell.resolved"
"""In the metadata of rows: the folder that relative paths were counted from."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MmapIndex:
    """The rows of an index in a file."""

    table: pa.Table
    digest: str
    """Of the rows; see ``digest_of``."""


def open_mmap(
    path: Path, normalize: Callable[[pa.Table], pa.Table], min_rows: int | None = None
) -> MmapIndex | None:
    """Map the rows of an index, and make the file for it where there is none yet; None for a small index.

    None as well where the file cannot be written: then every process holds the rows, and a warning says so.

    Args:
        path: the Parquet file.
        normalize: brings some rows to the columns and types of an index.
        min_rows: an index of fewer is small; by default ``MMAP_MIN_ROWS``.

    Raises:
        OSError: the Parquet file cannot be read.
        pa.ArrowException: it is damaged, or none.
    """
    if pq.read_metadata(path).num_rows < (MMAP_MIN_ROWS if min_rows is None else min_rows):
        return None
    fingerprint = _fingerprint(path, normalize(pq.read_schema(path).empty_table()).schema)
    if (found := _load(path, fingerprint)) is not None:
        return found
    with _exclusive_lock(path):
        if (found := _load(path, fingerprint)) is None:
            try:
                _write(path, fingerprint, normalize)
            except (OSError, OutputError) as error:
                _log.warning(
                    "%s: expected to write an Arrow file beside it that all processes share, got %s; each holds the index "
                    "in its own memory",
                    path,
                    error,
                )
                return None
            found = _load(path, fingerprint)
    return found


def remove_mmap(path: Path) -> None:
    """Take away what was made of an index; who has mapped it keeps it."""
    for one in (_metadata_path(path), _arrow_path(path)):
        one.unlink(missing_ok=True)


class ChunkedTable:
    """Takes rows out of a table that lies in chunks, without joining these. Any thread may ask."""

    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._chunks = [pa.Table.from_batches([batch]) for batch in table.to_batches()]
        self._starts = _starts_of([len(chunk) for chunk in self._chunks])

    def take(self, rows: np.ndarray) -> pa.Table:
        """Take some rows, in their order."""
        if not len(rows):
            return self._schema.empty_table()
        if len(self._chunks) == 1:
            return self._chunks[0].take(pa.array(rows))
        chunk_of = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(chunk_of, kind="stable")
        parts = [
            self._chunks[number].take(pa.array(some - self._starts[number]))
            for number, some in _grouped(chunk_of[order], rows[order])
        ]
        return pa.concat_tables(parts).combine_chunks().take(pa.array(np.argsort(order, kind="stable")))


class IntColumn:
    """A column of integers, read where it lies. Null is 0. Any thread may ask."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        filled = pc.fill_null(column, 0) if column.null_count else column
        self._chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in filled.chunks]
        self._starts = _starts_of([len(chunk) for chunk in self._chunks])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Take some rows, in their order, as int64."""
        if len(self._chunks) == 1:
            return np.asarray(self._chunks[0][rows], np.int64)
        found = np.empty(len(rows), np.int64)
        chunk_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(chunk_of).tolist():
            mask = chunk_of == number
            found[mask] = self._chunks[number][rows[mask] - self._starts[number]]
        return found


def _starts_of(sizes: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)


def _grouped(numbers: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    edges = np.flatnonzero(np.diff(numbers)) + 1
    for number, some in zip(numbers[np.concatenate([[0], edges])], np.split(values, edges), strict=True):
        yield int(number), some


def _fingerprint(path: Path, schema: pa.Schema) -> str:
    """Hash size, time and end of a Parquet file, the columns wanted of it, and the folder that its paths count from."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        file.seek(max(0, status.st_size - FOOTER_BYTES))
        identity = f"{status.st_size} {status.st_mtime_ns} {CHUNK_ROWS} {','.join(schema.names)} "
        identity += (schema.metadata or {}).get(RESOLVED, b"").hex()
        return hashlib.blake2b(identity.encode() + file.read(), digest_size=8).hexdigest()


def _arrow_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.arrow")


def _metadata_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.arrow.json")


def _load(path: Path, fingerprint: str) -> MmapIndex | None:
    try:
        metadata = json.loads(_metadata_path(path).read_text())
        table, name = _open_arrow(_arrow_path(path))
        is_current = metadata["parquet"] == fingerprint and metadata["arrow"] == name
    except (OSError, ValueError, KeyError):  # not there, not ours to read, or not whole: it is made anew
        return None
    return MmapIndex(table, metadata["digest"]) if is_current else None


def _open_arrow(path: Path) -> tuple[pa.Table, str]:
    """Map an Arrow file; returns its rows and the name that it was given."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    metadata = dict(table.schema.metadata)
    name = metadata.pop(_NAME).decode()
    return table.replace_schema_metadata(metadata), name


def _write(path: Path, fingerprint: str, normalize: Callable[[pa.Table], pa.Table]) -> None:
    name = uuid.uuid4().hex
    remove_stale(path.parent)  # what a killed process was making is as large as the index in memory
    with atomic_write(_arrow_path(path)) as file:
        writer: pa.RecordBatchFileWriter | None = None
        for table in _read_chunks(path):
            rows = normalize(table).combine_chunks()
            named = rows.replace_schema_metadata({**rows.schema.metadata, _NAME: name.encode()})
            writer = writer or pa.ipc.new_file(file, named.schema)
            writer.write_table(named)
        assert writer is not None, "an index without rows is small"
        writer.close()
        file.flush()
        digest = digest_of(_open_arrow(Path(file.name))[0])
    write_json(_metadata_path(path), {"parquet": fingerprint, "arrow": name, "digest": digest}, indent=None)


def _read_chunks(path: Path) -> Iterator[pa.Table]:
    """Read row groups until they make a chunk."""
    waiting: list[pa.Table] = []
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            waiting.append(file.read_row_group(number))
            if sum(map(len, waiting)) >= CHUNK_ROWS or number == file.num_row_groups - 1:
                yield pa.concat_tables(waiting)
                waiting = []


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Let one process of this machine make the file while others wait; where locks are not to be had, several make it."""
    with path.open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
