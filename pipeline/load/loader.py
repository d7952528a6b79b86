"""Sample loader: reads the files of index rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cache.codec import CachedImage
from ..formats.integrity import REINDEX_HINT, integrity_problem
from ..geometry import Size
from ..index.file_info import content_hash
from ..index.index import Index
from ..index.mmap_index import ChunkedTable
from ..monitor.watchdog import Watchdog
from ..plan.error_policy import ErrorPolicy
from ..storage.local import ReadResult
from ..storage.storage import Storage
from .decode.decoder import EncodedImage
from .decode.orientation import oriented_size

Row = Mapping[str, Any]

COLUMNS = (
    "key",
    "uri",
    "bytes",
    "mtime_ns",
    "etag",
    "offset",
    "hash",
    "width",
    "height",
    "mode",
    "format",
    "orientation",
    "label",
    "labels",
    "mask",
    "mask_offset",
    "mask_bytes",
    "boxes",
    "box_labels",
    "keypoints",
)


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """An index row with its file or cached image, or the reason why it cannot be read."""

    row: Row
    file: EncodedImage | None
    reason: str = ""
    step: str = "read"
    """The failed step: ``read``, ``mask`` (reading it), ``decode`` if the bytes differ from the index, or ``limit`` if the
    file is larger than the plan allows."""
    size: Size | None = None
    """Height and width of the upright image; None if unusable."""
    mask: bytes | None = None
    """Content of the mask file, if the row has one."""
    cached_image: CachedImage | None = None
    """Its cached image; in that case the file was not read."""
    cache_key: np.ndarray | None = None
    """Key under which it may be cached."""


class SampleLoader:
    """Reads the files of samples. Thread-safe; call ``close`` when done."""

    def __init__(
        self, index: Index, rules: ErrorPolicy | None = None, watchdog: Watchdog | None = None
    ) -> None:
        columns = index.table.select(COLUMNS)
        self._absent: dict[str, None] = {
            name: None for name in COLUMNS if columns[name].null_count == len(columns)
        }
        self._table = ChunkedTable(columns.drop_columns([*self._absent]))
        self._rules = rules or ErrorPolicy()
        self._watchdog = watchdog or Watchdog(None)
        self._storage = Storage(self._rules.max_wait_s)

    def load(self, rows: np.ndarray) -> list[EncodedSample]:
        """Read the files of some rows, in order.

        Raises:
            SourceUnavailableError: a remote source gives no answer.
        """
        return [self._load(row, None) for row in self._rows(rows)]

    def load_for_cached(self, rows: np.ndarray, cached_image: Sequence[CachedImage]) -> list[EncodedSample]:
        """Read only the masks of samples whose images are cached, in order; raises as ``load`` does."""
        return [self._load(row, one) for row, one in zip(self._rows(rows), cached_image, strict=True)]

    def reload(self, sample: EncodedSample) -> EncodedSample:
        """Read the file of a sample whose cached image is unusable; raises as ``load`` does."""
        return self._load(sample.row, None)

    def _rows(self, rows: np.ndarray) -> list[Row]:
        """Return index rows as dicts; columns without any value are filled in at almost no cost."""
        return [self._absent | row for row in self._table.take(rows).to_pylist()]

    def close(self) -> None:
        """Close connections."""
        self._storage.close()

    def _load(self, row: Row, cached_image: CachedImage | None) -> EncodedSample:
        if reason := self._too_large(row):
            return EncodedSample(row, None, reason, "limit")
        piece = mask = None
        step = "read"
        try:
            if cached_image is None or row["mask"]:
                with self._watchdog.track("read", row["key"]):
                    piece = self._read(row) if cached_image is None else None
                    step = "mask"
                    mask = self._read_mask(row)
        except FileNotFoundError as error:
            return EncodedSample(row, None, f"{_in_words(error)}; it has vanished since it was indexed", step)
        except OSError as error:
            return EncodedSample(row, None, _in_words(error), step)
        size = upright_size(row)
        if piece is None:
            return EncodedSample(row, None, size=size, mask=mask, cached_image=cached_image)
        step, reason = "read", _changed(row, piece)
        if not reason:
            stored = (row["height"], row["width"])
            step, reason = "decode", integrity_problem(piece.data, row["format"], row["mode"], stored)
        if reason:
            return EncodedSample(row, None, reason, step)
        file = EncodedImage(piece.data, row["format"], row["mode"], row["orientation"], size, row["key"])
        return EncodedSample(row, file, size=size, mask=mask)

    def _read(self, row: Row) -> ReadResult:
        """Read a file plus one byte, to detect that it has grown; in a tar shard only the member."""
        num_bytes: int = row["bytes"]
        if row["offset"] is None:
            return self._storage.read(row["uri"], 0, num_bytes + 1, expected=num_bytes)
        return self._storage.read(row["uri"], row["offset"], num_bytes, expected=num_bytes)

    def _read_mask(self, row: Row) -> bytes | None:
        uri = row["mask"]
        if not uri:
            return None
        offset, size = row["mask_offset"] or 0, row["mask_bytes"]
        if size is None:
            size = self._storage.stat(uri).bytes
        if size > self._rules.max_file_bytes:
            raise OSError(0, f"the mask has {size:,} bytes, more than max_file_bytes", uri)
        return self._storage.read(uri, offset, size, expected=size).data

    def _too_large(self, row: Row) -> str:
        limits = self._rules
        pixels = row["width"] * row["height"]
        if pixels > limits.max_pixels:
            return f"expected at most max_pixels: {limits.max_pixels:,}, got {row['width']}x{row['height']} = {pixels:,}"
        if row["bytes"] > limits.max_file_bytes:
            return f"expected at most max_file_bytes: {limits.max_file_bytes:,}, got {row['bytes']:,}"
        return ""


def _in_words(error: OSError) -> str:
    return f"{type(error).__name__}: {error.strerror or error}"


def _changed(row: Row, piece: ReadResult) -> str:
    """Return how a file differs from the index, using cheap checks, or the content hash if indexed; empty if unchanged."""
    if len(piece.data) != row["bytes"]:
        now = piece.file_bytes if row["offset"] is None and piece.file_bytes is not None else len(piece.data)
        got = f"{now:,}" if now <= row["bytes"] or piece.file_bytes is not None else "more"
        return f"expected {row['bytes']:,} bytes as indexed, got {got}; {REINDEX_HINT}"
    if row["hash"] is not None:
        found = content_hash(piece.data)
        return (
            ""
            if found == row["hash"]
            else f"expected content with the hash {row['hash']}, got {found}; {REINDEX_HINT}"
        )
    if _other_tag(piece.etag, row["etag"]):
        return f"expected a file with the ETag {row['etag'][:40]!r} as indexed, got the same size with another; {REINDEX_HINT}"
    if piece.mtime_ns is not None and piece.mtime_ns != row["mtime_ns"]:
        return f"expected the indexed modification time, got the same size written at another time; {REINDEX_HINT}"
    return ""


def upright_size(row: Row) -> Size:
    """Return height and width of an image after EXIF orientation."""
    return oriented_size((row["height"], row["width"]), row["orientation"])


def _other_tag(now: str | None, indexed: str | None) -> bool:
    """Return whether the ETag changed; weak ETags are ignored, as they may differ for the same content."""
    return now is not None and indexed is not None and now != indexed and not now.startswith("W/")
