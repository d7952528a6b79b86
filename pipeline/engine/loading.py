"""From rows of the index to files in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.packing import Packed
from ..dataset.index import Index
from ..decode.chain import Encoded
from ..policy.sizes import Size

Row = Mapping[str, Any]

COLUMNS = (
    "key",
    "uri",
    "bytes",
    "width",
    "height",
    "mode",
    "format",
    "orientation",
    "label",
    "mask",
    "boxes",
)
QUARTER_TURNED = 5
"""EXIF orientations from here on exchange width and height."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One row of the index with its file or what is cached of it, or why it cannot be read."""

    row: Row
    file: Encoded | None
    reason: str = ""
    size: Size | None = None
    """Height and width of the upright picture; None where there is nothing to read."""
    kept: Packed | None = None
    """What the cache holds of it; then the file was not read."""
    entry: np.ndarray | None = None
    """The key under which it may be cached."""


class SampleLoader:
    """Reads files; any thread may call it."""

    def __init__(self, index: Index) -> None:
        self._table = index.table.select(COLUMNS).combine_chunks()

    def describe(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return what the index says of some rows, in order; reads no file."""
        described: list[dict[str, Any]] = self._table.take(rows).to_pylist()
        return described

    def load(self, rows: np.ndarray) -> list[Loaded]:
        """Read the files of some rows, in order."""
        return [_load(row) for row in self._table.take(rows).to_pylist()]


def _load(row: Row) -> Loaded:
    try:
        data = Path(row["uri"]).read_bytes()
    except OSError as error:
        return Loaded(row, None, f"{type(error).__name__}: {error.strerror}")
    if len(data) != row["bytes"]:
        changed = (
            f"wanted {row['bytes']:,} bytes as indexed, got {len(data):,}; the file changed: index again"
        )
        return Loaded(row, None, changed)
    size = upright_size(row)
    return Loaded(row, Encoded(data, row["format"], row["mode"], row["orientation"], size), size=size)


def upright_size(row: Row) -> Size:
    """Say how large a picture is once its EXIF orientation is applied."""
    turned = row["orientation"] >= QUARTER_TURNED
    return (row["width"], row["height"]) if turned else (row["height"], row["width"])
