"""Checkpoint of an index scan: scanned rows are stored beside the index, so that an interrupted run can be resumed.

::

    index.parquet                          the index that is built
    .index.parquet.parts/part-*.parquet    rows scanned so far, some seconds of work each; deleted once the index is written

A part holds files and complete shards with size, mtime or etag. The next run with the same arguments compares these and
opens only what has changed; the order and number of the parts have no meaning.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ..atomic_io import atomic_write, remove_stale
from ..errors import OutputError
from ..storage.local import FileStat
from .file_info import FILE_INFO_COLUMNS, HEADER_COLUMNS, FileInfo, file_info_from_row, file_info_to_row
from .index import SCHEMA
from .scan import is_reusable_status
from .sources.tar_samples import ShardContent, ShardSample

WRITE_INTERVAL_S = 10.0
"""Interval between parts in seconds: the most work that an interruption loses."""

_METADATA_KEY = b"lightwell.sightings"
_NAME = re.compile(r"part-[0-9a-f]{32}\.parquet")
_ROWS = pa.schema(
    [
        ("uri", pa.string()),
        ("key", pa.string()),
        ("label", pa.string()),
        ("was_read", pa.bool_()),
        *(SCHEMA.field(name) for name in (*FILE_INFO_COLUMNS, *HEADER_COLUMNS)),
    ]
)
"""``key`` and ``label`` (label and fields, as JSON) are those of a shard's samples, null for files."""


class ScanCheckpoint:
    """Stores scanned rows periodically. A context manager, which writes once more when it is left by an exception.

    Args:
        output: path of the index.
        interval_s: seconds between parts.
        report: called with a message when an interrupted run is resumed.
    """

    def __init__(
        self,
        output: Path,
        *,
        interval_s: float = WRITE_INTERVAL_S,
        report: Callable[[str], object] | None = None,
    ) -> None:
        self.folder = output.with_name(f".{output.name}.parts")
        self.files: dict[str, FileInfo] = {}
        """Files that an interrupted run has scanned, by URI."""
        self.shards: dict[str, ShardContent] = {}
        """Shards that it has read completely, by URI."""
        self._interval_s = interval_s
        self._report = report
        self._request = ""
        self._rows: list[dict[str, Any]] = []
        self._shards: dict[str, dict[str, Any]] = {}
        self._written_at_s = time.monotonic()

    def load(self, request: Mapping[str, Any]) -> None:
        """Load the parts of an interrupted run with the same arguments; delete any others."""
        self._request = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
        for path in self._parts():
            try:
                table = pq.read_table(path, page_checksum_verification=True)
                metadata = json.loads((table.schema.metadata or {})[_METADATA_KEY])
            except (KeyError, ValueError, OSError, pa.ArrowException):
                metadata = {}  # damaged by a power loss: its files are scanned again
            if metadata.get("request") == self._request:
                self._restore(table.to_pylist(), metadata["shards"])
            else:
                path.unlink(missing_ok=True)
        if self._report is not None and (self.files or self.shards):
            what = f"{len(self.files):,} files" if self.files else f"{len(self.shards):,} shards"
            self._report(f"resuming an interrupted scan: {what} are done")

    def _restore(self, rows: Sequence[Mapping[str, Any]], shards: Mapping[str, Mapping[str, Any]]) -> None:
        samples: dict[str, list[ShardSample]] = {uri: [] for uri in shards}
        for row in rows:
            info = file_info_from_row(row, was_read=row["was_read"])
            if row["uri"] in samples:
                label, fields = json.loads(row["label"])
                samples[row["uri"]].append(ShardSample(row["key"], label, info, fields))
            else:
                self.files[row["uri"]] = info
        for uri, metadata in shards.items():
            found = {name: value for name, value in metadata.items() if name != "remarks"}
            self.shards[uri] = ShardContent(FileStat(**found), samples[uri], metadata.get("remarks", ()))

    def add_files(self, uris: Sequence[str], infos: Sequence[FileInfo]) -> None:
        """Store scanned files, without those whose status may change while the file does not.

        Raises:
            OutputError: the part cannot be written.
        """
        for uri, info in zip(uris, infos, strict=True):
            if is_reusable_status(info.header.status) and self.files.get(uri) != info:
                self._add(uri, None, None, info)
        self._write_if_due()

    def add_shard(self, uri: str, read: ShardContent) -> None:
        """Store a completely read shard.

        Raises:
            OutputError: the part cannot be written.
        """
        if uri not in self.shards or self.shards[uri].file_stat != read.file_stat:
            self._shards[uri] = {**asdict(read.file_stat), "remarks": list(read.remarks)}
            for sample in read.samples:
                self._add(uri, sample.key, json.dumps([sample.label, dict(sample.fields)]), sample.file_info)
        self._write_if_due()

    def _add(self, uri: str, key: str | None, label: str | None, info: FileInfo) -> None:
        self._rows.append(
            {"uri": uri, "key": key, "label": label, "was_read": info.was_read, **file_info_to_row(info)}
        )

    def _write_if_due(self) -> None:
        if time.monotonic() - self._written_at_s >= self._interval_s:
            self._write()

    def _write(self) -> None:
        if self._rows or self._shards:
            metadata = {
                "request": self._request,
                "shards": self._shards,
            }
            table = pa.Table.from_pylist(
                self._rows, schema=_ROWS.with_metadata({_METADATA_KEY: json.dumps(metadata).encode()})
            )
            with atomic_write(self.folder / f"part-{uuid.uuid4().hex}.parquet") as file:
                pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            self._rows, self._shards = [], {}
        self._written_at_s = time.monotonic()

    def __enter__(self) -> Self:
        self._written_at_s = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the pending rows after an error or Ctrl-C; otherwise the index is about to be saved."""
        if error is not None:
            with suppress(OutputError):  # the original error is more useful
                self._write()

    def clear(self) -> None:
        """Delete all parts, once the index is written; the folder stays if it holds other files."""
        for path in self._parts():
            path.unlink(missing_ok=True)
        if not self.folder.is_symlink() and self.folder.is_dir():
            remove_stale(self.folder)
            with suppress(OSError):  # not empty
                self.folder.rmdir()

    def _parts(self) -> list[Path]:
        """List the parts; none if the folder is a symbolic link."""
        if self.folder.is_symlink():
            return []
        found = sorted(self.folder.glob("part-*.parquet"))
        return [path for path in found if _NAME.fullmatch(path.name) and not path.is_symlink()]
