"""Digest of an index, computed slice by slice on Arrow buffers without Python lists of keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SLICE_ROWS = 1 << 16
_INT_COLUMNS = ("bytes", "mtime_ns", "label")
_TEXT_COLUMNS = ("key", "split")
_OPTIONAL_TEXT_COLUMNS = ("etag", "hash")
_LIST_COLUMNS = ("labels", "boxes", "box_labels", "keypoints")
_NEEDS_ESCAPE = r"[^ !#-\[\]-~]"
"""Characters that JSON escapes, and all that are not ASCII."""


def digest_of(table: pa.Table) -> str:
    """Hash key, bytes, mtime, label and split of every row, in order.

    Etag, hash, boxes, box labels, keypoints and the presence of masks are hashed only where there are any.

    Returns:
        32 hex digits, independent of the table's chunks.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(str(len(table)).encode())
    for name in _INT_COLUMNS:
        column = table[name]
        # Arrow converts columns with nulls, which no valid index has here, through floats; not to be split into slices.
        for part in [column] if column.null_count else _slices(column):
            digest.update(np.ascontiguousarray(part.to_numpy(), dtype="<i8").data)
    for name in _TEXT_COLUMNS:
        # File names contain no zero byte, which therefore separates them; \\1 stands for null.
        for number, part in enumerate(_slices(table[name])):
            digest.update(b"\0" if number else b"")
            digest.update(_join(pc.fill_null(part, "\1"), "\0"))
        digest.update(b"\0\0")
    for name in _OPTIONAL_TEXT_COLUMNS:
        if table[name].null_count < len(table):
            digest.update(f"[{json.dumps(name)}, [".encode())
            for number, part in enumerate(_slices(table[name])):
                digest.update(b", " if number else b"")
                digest.update(_as_json(part))
            digest.update(b"]]")
    names = set(table.column_names)
    if "mask" in names and table["mask"].null_count < len(table):
        digest.update(b"[mask]")
        for part in _slices(table["mask"]):
            digest.update(np.ascontiguousarray(pc.is_valid(part).to_numpy()).data)
    for name in _LIST_COLUMNS:
        if name in names and table[name].null_count < len(table):
            digest.update(f"[{name}]".encode())
            for numbers in _list_levels(table[name]):
                digest.update(np.ascontiguousarray(numbers).data)
    return digest.hexdigest()


def _slices(column: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    for start in range(0, len(column), SLICE_ROWS):
        yield column.slice(start, SLICE_ROWS)


def _list_levels(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """Yield the list lengths of each nesting level, -1 for null, then the values."""
    kind, depth = column.type, 0
    while pa.types.is_list(kind):
        for part in _slices(column):
            lengths = pc.list_value_length(_flatten(part, depth))
            yield pc.fill_null(lengths, -1).to_numpy().astype("<i4")
        kind, depth = kind.value_type, depth + 1
    for part in _slices(column):
        values = pc.fill_null(_flatten(part, depth), -1).to_numpy()
        yield values.astype("<f4" if pa.types.is_floating(kind) else "<i8")


def _flatten(lists: pa.ChunkedArray, times: int) -> pa.ChunkedArray:
    for _ in range(times):
        lists = pc.list_flatten(lists)
    return lists


def _join(column: pa.ChunkedArray, separator: str) -> pa.Buffer:
    texts = column.combine_chunks()
    return pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), separator)[
        0
    ].as_buffer()


def _as_json(column: pa.ChunkedArray) -> pa.Buffer | bytes:
    """Serialize strings as ``json.dumps`` does a list of them, without the brackets."""
    if column.null_count or pc.any(pc.match_substring_regex(column, _NEEDS_ESCAPE)).as_py():
        return json.dumps(column.to_pylist())[1:-1].encode()
    return _join(pc.binary_join_element_wise('"', column, '"', ""), ", ")
