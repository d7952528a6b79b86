"""From rows of the index to files in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset.index import Index
from ..decode.chain import Encoded

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
    """One row of the index with its file, or why it cannot be read."""

    row: Row
    file: Encoded | None
    reason: str = ""


class SampleLoader:
    """Reads files; any thread may call it."""

    def __init__(self, index: Index) -> None:
        self._table = index.table.select(COLUMNS).combine_chunks()

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
    turned = row["orientation"] >= QUARTER_TURNED
    size = (row["width"], row["height"]) if turned else (row["height"], row["width"])
    return Loaded(row, Encoded(data, row["format"], row["mode"], row["orientation"], size))
