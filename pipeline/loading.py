"""From rows of the index to decoded pictures."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .decode.chain import DecodeChain, Decoded, Encoded, decode_alone
from .index import Index
from .schedule import BatchSpec

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One row of the index with its pixels, or why there are none."""

    row: Row
    decoded: Decoded
    step: str = "decode"
    """The step that failed, where one did."""


class SampleLoader:
    """Reads files and decodes them."""

    def __init__(self, index: Index) -> None:
        self._table = index.table.combine_chunks()

    def load_batch(self, spec: BatchSpec, chain: DecodeChain, readers: Executor) -> list[Loaded]:
        """Read a batch in the readers' threads and decode it in this one."""
        rows: list[Row] = self._table.take(spec.rows).to_pylist()
        files = list(readers.map(_read, rows))
        decoded = iter(chain.decode([file for file in files if isinstance(file, Encoded)]))
        return [
            Loaded(row, next(decoded))
            if isinstance(file, Encoded)
            else Loaded(row, Decoded(None, (), file), "read")
            for row, file in zip(rows, files, strict=True)
        ]

    def load_one(self, row_number: int) -> Loaded:
        """Read and decode one row without DALI; any thread may call this.

        OpenCV's pixels equal DALI's to the last bit for JPEG, PNG, BMP and WebP.
        """
        row: Row = self._table.slice(row_number, 1).to_pylist()[0]
        file = _read(row)
        if isinstance(file, Encoded):
            return Loaded(row, decode_alone(file, []))
        return Loaded(row, Decoded(None, (), file), "read")


def _read(row: Row) -> Encoded | str:
    """Read one file; a string is the reason why it cannot be read."""
    try:
        data = Path(row["uri"]).read_bytes()
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return Encoded(data, row["format"], row["mode"], row["orientation"])
