"""Memory-mapped index: an Arrow file beside the Parquet file, shared by all processes of a machine.

::

    index.parquet                 what `lightwell index` wrote
    .index.parquet.arrow          the same rows in memory layout; written by the first process that opens the index
    .index.parquet.arrow.json     fingerprint of the Parquet file, and digest of the rows

Only pages with accessed rows are in memory, and the system may evict them. Both files are written under a temporary name and
renamed, the Arrow file first: it is valid only if the JSON file names it and the current Parquet file.
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
"""An index with fewer rows, some 230 MB, is loaded by every process."""
CHUNK_ROWS = 1 << 22
"""Rows per record batch; one batch is in memory while the file is written."""
FOOTER_BYTES = 1 << 16
_NAME = b"lightwell.mapped"
RESOLVED = b"lightwell.resolved"
"""Metadata key: the base folder of relative paths."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MmapIndex:
    """Memory-mapped rows of an index."""

    table: pa.Table
    digest: str
    """Of the rows; see ``digest_of``."""


def open_mmap(
    path: Path, normalize: Callable[[pa.Table], pa.Table], min_rows: int | None = None
) -> MmapIndex | None:
    """Memory-map the rows of an index, writing the Arrow file if necessary; None for a small index.

    Also None, with a warning, if the file cannot be written; then every process loads the rows.

    Args:
        path: the Parquet file.
        normalize: converts rows to the columns and types of an index.
        min_rows: rows from which an index is mapped; by default ``MMAP_MIN_ROWS``.

    Raises:
        OSError: the Parquet file cannot be read.
        pa.ArrowException: the file is damaged, or not Parquet.
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
                    "%s: expected to write an Arrow file beside it that all processes share, got %s; each process loads the index "
                    "into its own memory",
                    path,
                    error,
                )
                return None
            found = _load(path, fingerprint)
    return found


def remove_mmap(path: Path) -> None:
    """Delete the memory-mapped copy of an index; processes that have it mapped keep it."""
    for one in (_metadata_path(path), _arrow_path(path)):
        one.unlink(missing_ok=True)


class ChunkedTable:
    """Chunked table with random access to rows, without concatenating the chunks. Thread-safe."""

    def __init__(self, table: pa.Table) -> None:
        self._schema = table.schema
        self._chunks = [pa.Table.from_batches([batch]) for batch in table.to_batches()]
        self._starts = _starts_of([len(chunk) for chunk in self._chunks])

    def take(self, rows: np.ndarray) -> pa.Table:
        """Return rows by number, in the given order."""
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
    """Zero-copy integer column with random access; null is 0. Thread-safe."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        filled = pc.fill_null(column, 0) if column.null_count else column
        self._chunks = [chunk.to_numpy(zero_copy_only=False) for chunk in filled.chunks]
        self._starts = _starts_of([len(chunk) for chunk in self._chunks])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return values by row number, in the given order, as int64."""
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
    """Hash size, mtime and footer of a Parquet file, the requested columns, and the base folder of its paths."""
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
    except (OSError, ValueError, KeyError):  # missing, unreadable or incomplete: written again
        return None
    return MmapIndex(table, metadata["digest"]) if is_current else None


def _open_arrow(path: Path) -> tuple[pa.Table, str]:
    """Memory-map an Arrow file; return its rows and its unique name."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    metadata = dict(table.schema.metadata)
    name = metadata.pop(_NAME).decode()
    return table.replace_schema_metadata(metadata), name


def _write(path: Path, fingerprint: str, normalize: Callable[[pa.Table], pa.Table]) -> None:
    name = uuid.uuid4().hex
    remove_stale(path.parent)  # left by killed processes, and as large as the index in memory
    with atomic_write(_arrow_path(path)) as file:
        writer: pa.RecordBatchFileWriter | None = None
        for table in _read_chunks(path):
            rows = normalize(table).combine_chunks()
            named = rows.replace_schema_metadata({**rows.schema.metadata, _NAME: name.encode()})
            writer = writer or pa.ipc.new_file(file, named.schema)
            writer.write_table(named)
        assert writer is not None, "an empty index is never mapped"
        writer.close()
        file.flush()
        digest = digest_of(_open_arrow(Path(file.name))[0])
    write_json(_metadata_path(path), {"parquet": fingerprint, "arrow": name, "digest": digest}, indent=None)


def _read_chunks(path: Path) -> Iterator[pa.Table]:
    """Read row groups and concatenate them to chunks of at least ``CHUNK_ROWS``."""
    waiting: list[pa.Table] = []
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        for number in range(file.num_row_groups):
            waiting.append(file.read_row_group(number))
            if sum(map(len, waiting)) >= CHUNK_ROWS or number == file.num_row_groups - 1:
                yield pa.concat_tables(waiting)
                waiting = []


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Hold a file lock, so that one process writes the file while others wait; without lock support, several write it."""
    with path.open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
