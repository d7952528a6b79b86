"""Records of a job's stages on disk: written in parts, atomically, verified on resume, and merged.

out/stages/NAME-FINGERPRINT/parts/part-000000.parquet     records of some items, with the position after them
out/stages/NAME-FINGERPRINT/records.parquet               all parts merged, after the last item
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.atomic_io import atomic_write, remove_stale
from ..pipeline.outputs.folder import OutputFolder
from ..pipeline.outputs.manifest import check_name
from .quarantine_log import entry_key

STAGES = "stages"
RECORDS = "records.parquet"
COUNTS = ("read", "used", "replaced", "left_out", "unusable")
PART_KEY = b"lightwell.part"
DIGEST_KEY = b"lightwell.part.digest"


@dataclass(frozen=True)
class Part:
    """Metadata of one part, or of a finished stage: counts, quarantine entries and the position after it."""

    number: int
    counts: Mapping[str, int]
    """Images of its items: read (used + replaced) and left_out; unusable counts the view's rows that the index rejects."""
    quarantine: tuple[Mapping[str, Any], ...]
    """Quarantine entries when the part was written; may include files of later parts."""
    position: Mapping[str, Any]
    """Position of the stage's run after the part."""
    files: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Size in bytes and digest of the files that the stage wrote for the part, by name."""

    @classmethod
    def load(cls, note: Mapping[str, Any], number: int) -> Part:
        """Read the metadata of a file; raises KeyError, TypeError or ValueError if it is malformed."""
        counts = {name: int(note["counts"][name]) for name in COUNTS}
        entries = tuple(dict(entry) for entry in note["quarantine"])
        for entry in entries:
            entry_key(entry)
        return cls(number, counts, entries, dict(note["position"]), dict(note["files"]))

    @classmethod
    def total(cls, parts: Sequence[Part]) -> Part:
        """Sum the counts of parts; quarantine entries are merged, one per file and step."""
        entries = {(entry["key"], entry["step"]): entry for part in parts for entry in part.quarantine}
        counts = {name: sum(part.counts[name] for part in parts) for name in COUNTS}
        counts["unusable"] = max((part.counts["unusable"] for part in parts), default=0)
        files = {name: digest for part in parts for name, digest in part.files.items()}
        return cls(0, counts, tuple(entries[name] for name in sorted(entries)), {}, files)

    def image_counts(self) -> dict[str, int]:
        """Return images read, used, replaced and skipped."""
        counts = {name: self.counts[name] for name in ("read", "used", "replaced")}
        return counts | {"skipped": self.counts["left_out"] + self.counts["unusable"]}


@dataclass(frozen=True)
class RecordStore:
    """Records of one stage in the output folder of its job."""

    output: OutputFolder
    folder: str
    """Folder of the stage, relative to the output folder; contains the stage's fingerprint."""
    schema: pa.Schema
    """Schema of the records."""

    @property
    def records_name(self) -> str:
        """File name of all records, relative to the output folder."""
        return f"{self.folder}/{RECORDS}"

    def part_name(self, number: int) -> str:
        """Return the file name of a part, relative to the output folder."""
        return f"{self.folder}/parts/part-{number:06d}.parquet"

    @classmethod
    def patterns(cls, folder: str) -> tuple[str, ...]:
        """Return the names and patterns of the files in the folder of a stage."""
        return f"{folder}/{RECORDS}", f"{folder}/parts/part-*.parquet"

    def resume_parts(self) -> list[Part]:
        """Load the leading undamaged parts of an interrupted run; delete the others."""
        parts: list[Part] = []
        while (part := self._read(self.part_name(len(parts)), len(parts))) is not None:
            parts.append(part[0])
        kept = {self.part_name(part.number) for part in parts}
        self.output.claim(*sorted(kept), *(name for part in parts for name in part.files))
        self.output.remove(*sorted(self.listed_parts() - kept))
        remove_stale(self._parts_folder)
        return parts

    def listed_parts(self) -> set[str]:
        """Return the names of the parts of an earlier run, damaged or not."""
        return {name for name in self.output.owned if name.startswith(f"{self.folder}/parts/")}

    def load_finished(self) -> tuple[Part, pa.Table] | None:
        """Read the records of a finished run and verify all checksums; returns totals and records, None if damaged."""
        return self._read(self.records_name, 0)

    def _read(self, name: str, number: int) -> tuple[Part, pa.Table] | None:
        """Read a file of records; None if it or a file of its parts is missing, damaged, or not of this stage."""
        path = self.output.path / name
        if name not in self.output.owned or path.is_symlink() or not path.is_file():
            return None
        try:
            table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
            note = read_part_metadata(table.schema)
            if note.get("stage") != self.folder or not table.schema.equals(self.schema):
                return None
            part = Part.load(note, number)
            for file, expected in part.files.items():
                if size_and_digest(self.output.path / check_name(file)) != list(expected):
                    return None
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError):
            return None  # made again; the caller reports it
        return part, table.replace_schema_metadata(None)

    def write(self, part: Part, records: pa.Table) -> None:
        """Write the records of a part.

        Raises:
            OutputError: the file cannot be written.
            RequestError: a file that is not of this job has its name.
        """
        name = self.part_name(part.number)
        self.output.claim(name)
        write_parquet([records], self.output.path / name, self._schema_with(part))

    def merge(self, parts: Sequence[Part], total: Part) -> pa.Table:
        """Merge parts into one file; returns its records.

        Args:
            parts: all parts of a run.
            total: counts and entries of all parts, stored with the records.

        Raises:
            OutputError: the file cannot be written.
        """
        files = [self.output.path / self.part_name(part.number) for part in parts]
        tables = (pq.read_table(file, page_checksum_verification=True) for file in files)
        self.output.claim(self.records_name)
        path = self.output.path / self.records_name
        write_parquet(tables, path, self._schema_with(total))
        return pq.read_table(path, memory_map=True).replace_schema_metadata(None)

    def clear(self) -> None:
        """Delete all parts."""
        self.output.remove(*sorted(self.listed_parts()))
        folder = self._parts_folder
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()

    @property
    def _parts_folder(self) -> Path:
        return self.output.path / self.folder / "parts"

    def _schema_with(self, part: Part) -> pa.Schema:
        """Return the schema with the metadata that is needed to resume after a part."""
        metadata = {
            "stage": self.folder,
            "counts": part.counts,
            "quarantine": part.quarantine,
            "position": part.position,
            "files": part.files,
        }
        text = json.dumps(metadata).encode()
        return self.schema.with_metadata({PART_KEY: text, DIGEST_KEY: _digest(text)})


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


def write_parquet(tables: Iterable[pa.Table], path: Path, schema: pa.Schema) -> None:
    """Write tables of one schema into one Parquet file, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    with (
        atomic_write(path) as file,
        pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer,
    ):
        for table in tables:
            writer.write_table(table.replace_schema_metadata(schema.metadata))
