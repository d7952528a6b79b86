"""Parts of a batch job's records on disk: written aside, renamed, taken up again, merged."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.errors import OutputError

PART = b"lightwell.part"


@dataclass(frozen=True)
class Part:
    """How far one part of a job reaches."""

    number: int
    counts: dict[str, int]
    """Images of its batches: read = used + replaced, and left_out; and unusable of the whole view, which the index knew."""
    quarantine: tuple[Mapping[str, Any], ...]
    """What was in quarantine when the part was written; may hold files of later parts too."""
    position: Mapping[str, Any]
    """Of the feed, behind the part."""


@dataclass(frozen=True)
class PartStore:
    """The parts of one job below one folder."""

    folder: Path
    fingerprint: str | None
    """Decides whose parts are taken up; None takes up none."""
    schema: pa.Schema | None
    """Of the records; None takes the types from them."""

    def path(self, number: int) -> Path:
        """Name the file of a part."""
        return self.folder / f"part-{number:06d}.parquet"

    def take_up(self) -> list[Part]:
        """Find the whole parts of an interrupted run of the same job, in order; throw anything else away."""
        parts: list[Part] = []
        while self.fingerprint is not None:
            part = self._read(len(parts))
            if part is None:
                break
            parts.append(part)
        if not parts:
            self.clear()
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name not in {self.path(part.number).name for part in parts}:
                path.unlink()
        return parts

    def _read(self, number: int) -> Part | None:
        path = self.path(number)
        if not path.is_file():
            return None
        noted = json.loads((pq.read_schema(path).metadata or {}).get(PART, b"{}"))
        if noted.get("fingerprint") != self.fingerprint or "position" not in noted:
            return None
        return Part(number, noted["counts"], tuple(noted["quarantine"]), noted["position"])

    def write(self, part: Part, records: Sequence[Mapping[str, Any]]) -> None:
        """Write the records of a part.

        Raises:
            OutputError: the disk does not take it.
        """
        noted = {
            "fingerprint": self.fingerprint,
            "counts": part.counts,
            "quarantine": part.quarantine,
            "position": part.position,
        }
        table = pa.Table.from_pylist([dict(record) for record in records], schema=self.schema)
        write_parquet(
            [table.replace_schema_metadata({PART: json.dumps(noted).encode()})], self.path(part.number)
        )

    def merge(self, path: Path) -> pa.Table:
        """Merge all parts into one file; returns its table, memory-mapped.

        Raises:
            OutputError: the disk does not take it.
        """
        files = sorted(self.folder.glob("part-*.parquet"))
        schemas = [pq.read_schema(file).remove_metadata() for file in files]
        filled = [schema for schema in schemas if len(schema)]
        schema = self.schema or pa.unify_schemas(filled or [pa.schema([])], promote_options="permissive")
        tables = (fit(pq.read_table(file), schema) for file in files)
        write_parquet(tables, path, schema)
        return pq.read_table(path, memory_map=True)

    def clear(self) -> None:
        """Throw the parts away."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def fit(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring a part's table to the common columns and types; what it lacks becomes null."""
    empty = schema.empty_table()
    return (
        pa.concat_tables([empty, table.replace_schema_metadata(None)], promote_options="permissive")
        .select(schema.names)
        .cast(schema)
    )


def write_parquet(tables: Any, path: Path, schema: pa.Schema | None = None) -> None:
    """Write tables into one Parquet file, one after another: aside, then renamed."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    writer: pq.ParquetWriter | None = None
    try:
        try:
            if schema is not None:
                writer = pq.ParquetWriter(aside, schema, compression="zstd", write_page_checksum=True)
            for table in tables:
                writer = writer or pq.ParquetWriter(
                    aside, table.schema, compression="zstd", write_page_checksum=True
                )
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"wanted to write {str(path)!r}, got {error.strerror or error}; free space or choose another --out"
        ) from error
