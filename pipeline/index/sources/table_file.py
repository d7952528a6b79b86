"""Reads CSV and Parquet tables with limits on size; CSV text columns are not converted."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ...errors import SourceError, did_you_mean
from ...storage.local import is_remote
from ...storage.storage import Storage
from ...uris import public_uri, redact_uris
from .remarks import Remarks

MAX_TABLE_BYTES = 2**31
"""Largest table, as it is read at once. A Parquet file may unpack to four times as much."""
ROWS_PER_BYTE = 20
"""Most rows of a Parquet file per byte, beyond ``FREE_ROWS``; more cannot be distinct."""
FREE_ROWS = 1_000_000


def read_table(uri: str, text_columns: Iterable[str], storage: Storage, remarks: Remarks) -> pa.Table:
    """Read a CSV or Parquet file.

    CSV lines whose number of cells differs from the header's are left out and counted. Bytes of text columns that are not
    UTF-8 are escaped.

    Args:
        uri: path or URI.
        text_columns: CSV columns that are read as text, without type inference.
        storage: reads URIs.
        remarks: counts what is left out.

    Raises:
        SourceError: the table cannot be read, or is too large.
        SourceUnavailableError: its source does not respond.
    """
    public = public_uri(uri)
    try:
        size = storage.stat(uri).bytes
        if size > MAX_TABLE_BYTES:
            raise SourceError(
                f"expected a table of at most {MAX_TABLE_BYTES:,} bytes, got {public!r} of {size:,}; split it"
            )
        source = storage.read(uri, 0, size, expected=size).data if is_remote(uri) else uri
        if public.lower().endswith(".parquet"):
            return _read_parquet(_input(source), public, size)
        return _decoded(_read_csv(source, text_columns, remarks), remarks)
    except SourceError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = redact_uris(" ".join(str(error).split()))[:300]
        raise SourceError(
            f"expected a CSV or Parquet table, got {public!r} ({reason}); write it again as"
            " comma-separated UTF-8 text or as Parquet"
        ) from error


def _input(source: str | bytes) -> Any:
    return pa.BufferReader(source) if isinstance(source, bytes) else source


def _read_parquet(source: Any, public: str, size: int) -> pa.Table:
    with pq.ParquetFile(source, page_checksum_verification=True) as file:
        found = file.metadata
        unpacked = sum(found.row_group(number).total_byte_size for number in range(found.num_row_groups))
        if unpacked > 4 * MAX_TABLE_BYTES or found.num_rows > FREE_ROWS + ROWS_PER_BYTE * size:
            raise SourceError(
                f"expected a table that fits into memory, got {public!r} with {found.num_rows:,} rows and {unpacked:,} "
                "unpacked bytes; write only the columns that are needed, or split it"
            )
        return file.read()


def _read_csv(source: str | bytes, text_columns: Iterable[str], remarks: Remarks) -> pa.Table:
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(text_columns, pa.binary()))
    try:
        return pa_csv.read_csv(_input(source), parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid:  # malformed lines, which Arrow passes to a handler only as UTF-8
        escaped = _escaped(source, remarks)

    def leave_out(row: pa_csv.InvalidRow) -> str:
        lines.append(f"{row.actual_columns} instead of {row.expected_columns}: {(row.text or '')[:60]}")
        return "skip"

    lines: list[str] = []
    parse.invalid_row_handler = leave_out
    table = pa_csv.read_csv(escaped, parse_options=parse, convert_options=convert)
    for line in sorted(lines):
        remarks.add("left_out", "lines of the table with another number of cells than its header", line)
    return table


def _escaped(source: str | bytes, remarks: Remarks) -> pa.BufferReader:
    r"""Read a complete text, with bytes that are not UTF-8 escaped, such as ``\xff``."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    text = io.BytesIO()
    num_bytes = 0
    with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
        while chunk := file.read(1 << 20):
            num_bytes += len(chunk)
            text.write(decoder.decode(chunk).encode())
    text.write(decoder.decode(b"", final=True).encode())
    if text.tell() != num_bytes:
        remarks.add("converted", "tables with bytes that are not UTF-8 to escapes such as \\xff")
    return pa.BufferReader(text.getbuffer())


def _decoded(table: pa.Table, remarks: Remarks) -> pa.Table:
    """Decode binary columns to text."""
    for number, column in enumerate(table.columns):
        if not pa.types.is_binary(column.type):
            continue
        name = table.column_names[number]
        try:
            text = column.cast(pa.string())
        except pa.ArrowInvalid:
            cells = [
                None if cell is None else cell.decode("utf-8", "backslashreplace")
                for cell in column.to_pylist()
            ]
            wrong = [
                cell
                for cell, old in zip(cells, column.to_pylist(), strict=True)
                if cell and cell.encode() != old
            ]
            remarks.add(
                "converted", f"cells of column {name!r} that are not UTF-8", wrong[0], count=len(wrong)
            )
            text = pa.chunked_array([pa.array(cells, pa.string())])
        table = table.set_column(number, name, text)
    return table


def require_column(table: pa.Table, column: str, file: str, *arguments: str) -> None:
    """Check that a table has a column of this name, exactly one; ``arguments`` of ``build_index`` could name another.

    Raises:
        SourceError: there is none, or several.
    """
    names = table.column_names
    if column not in names:
        options = " or ".join(f"--{name.replace('_', '-')} ({name}= in Python)" for name in arguments)
        hint = did_you_mean(column, names) or f"name the right one with {options}"
        if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
            hint = "write the table with commas between its cells"
        raise SourceError(f"{file}: expected a column {column!r}, got the columns {names[:50]}; {hint}")
    if names.count(column) > 1:
        raise SourceError(f"{file}: expected one column {column!r}, got several; rename the others")


def column_values(table: pa.Table, column: str, file: str) -> list[Any] | None:
    """Return the values of a column, None if the table has no such column.

    Raises:
        SourceError: there are several columns of this name, or a value cannot be converted to Python.
    """
    if column not in table.column_names:
        return None
    require_column(table, column, file)
    try:
        return list(table[column].to_pylist())
    except (pa.ArrowException, ValueError, OverflowError) as error:  # dates before year 1, invalid UTF-8
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{file}: expected text or numbers in column {column!r}, got {table[column].type} ({reason}); write it as text"
        ) from error
