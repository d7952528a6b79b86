"""Parts of a batch job's records on disk: written atomically, verified on resume, and merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.atomic_io import atomic_write, remove_stale
from ..pipeline.outputs.folder import OutputFolder

PARTS = "parts"
PATTERN = f"{PARTS}/part-*.parquet"
PART_KEY = b"lightwell.part"
DIGEST_KEY = b"lightwell.part.digest"


@dataclass(frozen=True)
class Part:
    """Metadata of one part: counts, quarantine entries and the position after it."""

    number: int
    counts: dict[str, int]
    """Images of its batches: read (used + replaced) and left_out; unusable counts the view's rows that the index rejects."""
    quarantine: tuple[Mapping[str, Any], ...]
    """Quarantine entries when the part was written; may include files of later parts."""
    position: Mapping[str, Any]
    """Position of the feed after the part."""
    files: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Size in bytes and digest of the files that the job wrote for the part, by name."""


@dataclass(frozen=True)
class PartStore:
    """Parts of one job in its output folder."""

    output: OutputFolder
    fingerprint: str | None
    """Only parts with this fingerprint are reused; None reuses none."""
    schema: pa.Schema | None
    """Schema of the records; None infers it."""
    has_files: bool = False
    """Whether the job's files for each part are verified; a part that does not list them is made again."""

    def name(self, number: int) -> str:
        """Return the file name of a part, relative to the output folder."""
        return f"{PARTS}/part-{number:06d}.parquet"

    def resume_parts(self) -> list[Part]:
        """Load the leading undamaged parts of an interrupted run of the same job; delete the others."""
        parts: list[Part] = []
        while self.fingerprint is not None and (part := self._read(len(parts))) is not None:
            parts.append(part)
        kept = {self.name(part.number) for part in parts}
        self.output.claim(*sorted(kept), *(name for part in parts for name in part.files))
        self.output.remove(*sorted(self._listed() - kept))
        remove_stale(self.output.path / PARTS)
        return parts

    def num_listed(self) -> int:
        """Return the number of parts of an earlier run, damaged or not."""
        return len(self._listed())

    def _listed(self) -> set[str]:
        return {name for name in self.output.owned if name.startswith(f"{PARTS}/")}

    def _read(self, number: int) -> Part | None:
        """Read a part and verify all checksums; None if it is missing, damaged or of another job."""
        result = self._read_file(self.name(number), number)
        if result is None:
            return None
        part = result[0]
        is_intact = all(
            size_and_digest(self.output.path / name) == list(expected)
            for name, expected in part.files.items()
        )
        return part if is_intact else None

    def load_finished_records(self, name: str) -> tuple[Part, pa.Table] | None:
        """Read the records of a finished run of the same job and verify all checksums; returns totals and records.

        Args:
            name: file name of the records, relative to the output folder.
        """
        return None if self.fingerprint is None else self._read_file(name, 0)

    def _read_file(self, name: str, number: int) -> tuple[Part, pa.Table] | None:
        """Read a file of records; None if it is missing, damaged, or not of this job."""
        path = self.output.path / name
        if name not in self.output.owned or path.is_symlink() or not path.is_file():
            return None
        try:
            table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
            note = read_part_metadata(table.schema)
            if note.get("fingerprint") != self.fingerprint:
                return None
            files = note["files"] if self.has_files else note.get("files", {})
            return Part(number, note["counts"], tuple(note["quarantine"]), note["position"], files), table
        except (pa.ArrowException, OSError, KeyError, ValueError):
            return None  # made again; the caller reports it

    def write(self, part: Part, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of a part.

        Raises:
            OutputError: the file cannot be written.
            RequestError: a file that is not of this job has its name.
        """
        self.output.claim(self.name(part.number))
        table = pa.Table.from_pylist([dict(record) for record in records], schema=self.schema)
        metadata = table.replace_schema_metadata(self._metadata(part))
        write_parquet([metadata], self.output.path / self.name(part.number))

    def _metadata(self, part: Part) -> dict[bytes, bytes]:
        """Return the metadata of a part's Parquet file that is needed to resume after it."""
        metadata = {
            "fingerprint": self.fingerprint,
            "counts": part.counts,
            "quarantine": part.quarantine,
            "position": part.position,
            "files": part.files,
        }
        text = json.dumps(metadata).encode()
        return {PART_KEY: text, DIGEST_KEY: _digest(text)}

    def merge(self, parts: Sequence[Part], path: Path, total: Part | None = None) -> pa.Table:
        """Merge parts into one file; returns its table, memory-mapped.

        Args:
            parts: all parts of a run.
            path: path of the file.
            total: counts and entries of all parts, stored so that ``load_finished_records`` can find the records; None if they
                must not be reused.

        Raises:
            OutputError: the file cannot be written.
        """
        files = [self.output.path / self.name(part.number) for part in parts]
        schemas = [pq.read_schema(file).remove_metadata() for file in files]
        filled = [schema for schema in schemas if len(schema)]
        schema = self.schema or pa.unify_schemas(filled or [pa.schema([])], promote_options="permissive")
        tables = (
            conform_schema(pq.read_table(file, page_checksum_verification=True), schema) for file in files
        )
        metadata = None if total is None or self.fingerprint is None else self._metadata(total)
        write_parquet(tables, path, schema.with_metadata(metadata))
        return pq.read_table(path, memory_map=True)

    def clear(self) -> None:
        """Delete all parts."""
        self.output.remove(*sorted(self._listed()))
        folder = self.output.path / PARTS
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()


def read_part_metadata(schema: pa.Schema) -> dict[str, Any]:
    """Read the metadata of a part; empty if the file is not one.

    Raises:
        ValueError: the metadata is damaged.
    """
    metadata = schema.metadata or {}
    text = metadata.get(PART_KEY, b"{}")
    if metadata.get(DIGEST_KEY, _digest(text)) != _digest(text):
        raise ValueError("the metadata of a part is damaged")
    note = json.loads(text)
    return note if isinstance(note, dict) else {}


def size_and_digest(path: Path) -> list[Any] | None:
    """Return size and digest of a file; None if it does not exist."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return [file.tell(), digest]


def _digest(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=16).hexdigest().encode()


def conform_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Convert a part's table to the common columns and types; missing columns become null."""
    empty = schema.empty_table()
    return (
        pa.concat_tables([empty, table.replace_schema_metadata(None)], promote_options="permissive")
        .select(schema.names)
        .cast(schema)
    )


def write_parquet(
    tables: Sequence[pa.Table] | Iterator[pa.Table], path: Path, schema: pa.Schema | None = None
) -> None:
    """Write tables into one Parquet file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    writer: pq.ParquetWriter | None = None
    with atomic_write(path) as file:
        try:
            if schema is not None:
                writer = pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True)
            for table in tables:
                writer = writer or pq.ParquetWriter(
                    file, table.schema, compression="zstd", write_page_checksum=True
                )
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
