"""Records of a dataset audit: one row per image, with all that is known of it, and the table that checks read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....pipeline.statistics.file_measures import FILE_SCHEMA
from ....pipeline.statistics.image_measures import IMAGE_SCHEMA
from .dataset_table import DatasetTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ....pipeline.index.index import Index

FILES, IMAGES, RECORDS, CHECKS, FINDINGS, FIXES = "files", "images", "records", "checks", "findings", "fixes"
PICTURES, PLAN_EFFECTS = "pictures", "plan_effects"
"""Names of the audit's stages."""
INDEX_COLUMNS = ("bytes", "width", "height", "channels", "mode", "format", "orientation")
"""Columns of the index that checks read."""
NOT_READ, NOT_DECODED = "cannot be read", "cannot be decoded"
"""Problems of files whose header is intact; ``quarantine.jsonl`` has the details."""

_KEY = pa.field("key", pa.string())
FILES_SCHEMA = pa.schema([_KEY, *FILE_SCHEMA])
IMAGES_SCHEMA = pa.schema([_KEY, *IMAGE_SCHEMA])
_INDEX_TYPES = {
    "bytes": pa.int64(),
    "width": pa.int32(),
    "height": pa.int32(),
    "channels": pa.int8(),
    "mode": pa.string(),
    "format": pa.string(),
    "orientation": pa.int8(),
}
RECORDS_SCHEMA = pa.schema(
    [
        _KEY,
        ("class", pa.string()),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("problem", pa.string()),
        *_INDEX_TYPES.items(),
        *(field.with_nullable(True) for field in FILE_SCHEMA),
        *(field.with_nullable(True) for field in IMAGE_SCHEMA),
    ]
)
"""One row per image of the index, in its order. ``label`` is -1 and ``class`` null for images without a single label;
``problem`` says why a file cannot be used, and is null for others."""


def join_records(index: Index, split: str | None, files: pa.Table, images: pa.Table) -> pa.RecordBatch:
    """Return the rows of a split of an index with the measures of their files and images."""
    rows = index.table
    if split is not None:
        rows = rows.filter(pc.fill_null(pc.equal(rows["split"], index.resolve_split(split)), False))
    keys = rows["key"].combine_chunks()
    places = [pc.index_in(keys, value_set=measured["key"].combine_chunks()) for measured in (files, images)]
    status = rows["status"].combine_chunks()
    is_ok = pc.fill_null(pc.equal(status, "ok"), False)
    problem = pc.if_else(
        is_ok,
        pc.if_else(
            pc.is_null(places[0]),
            pa.scalar(NOT_READ),
            pc.if_else(pc.is_null(places[1]), pa.scalar(NOT_DECODED), pa.scalar(None, pa.string())),
        ),
        pc.fill_null(status, "the index gives no status"),
    )
    labels = pc.fill_null(rows["label"].combine_chunks(), -1)
    columns: dict[str, Any] = {
        "key": keys,
        "class": pa.array(
            [index.classes[one] if 0 <= one < len(index.classes) else None for one in labels.to_pylist()],
            pa.string(),
        ),
        "label": labels,
        "split": rows["split"],
        "problem": problem,
        **{name: rows[name] for name in INDEX_COLUMNS},
        **{name: files[name].take(places[0]) for name in FILE_SCHEMA.names},
        **{name: images[name].take(places[1]) for name in IMAGE_SCHEMA.names},
    }
    table = pa.table({name: columns[name] for name in RECORDS_SCHEMA.names}).cast(RECORDS_SCHEMA)
    return pa.RecordBatch.from_arrays(
        [_one_chunk(table[name], RECORDS_SCHEMA.field(name).type) for name in RECORDS_SCHEMA.names],
        schema=RECORDS_SCHEMA,
    )


def table_of(
    records: pa.Table, class_names: Sequence[str], seed: int, features: pa.Table | None = None
) -> DatasetTable:
    """Return the columns of records, and the features of a network by key, as checks read them."""
    return DatasetTable(
        keys=_objects(records["key"]),
        labels=records["label"].to_numpy(),
        class_names=class_names,
        splits=_objects(records["split"]),
        problems=_objects(records["problem"]),
        seed=seed,
        files={name: column_of(records[name]) for name in (*INDEX_COLUMNS, *FILE_SCHEMA.names)},
        images={name: column_of(records[name]) for name in IMAGE_SCHEMA.names},
        features=None if features is None else _features_of(records, features),
    )


def _features_of(records: pa.Table, features: pa.Table) -> NDArray[np.float32]:
    """Return features by row of the records; NaN for images without."""
    places = pc.index_in(records["key"].combine_chunks(), value_set=features["key"].combine_chunks())
    values = features["feature"].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)
    found = np.full((records.num_rows, flat.shape[1]), np.nan, np.float32)
    has = places.is_valid().to_numpy(zero_copy_only=False)
    found[has] = flat[places.drop_null().to_numpy()]
    return found


def column_of(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as an array: NaN, None or zero bytes for null; lists and hashes as rows."""
    kind = column.type
    if pa.types.is_string(kind):
        return _objects(column)
    if pa.types.is_fixed_size_binary(kind):
        filled = [value or bytes(kind.byte_width) for value in column.to_pylist()]
        return np.frombuffer(b"".join(filled), np.uint8).reshape(len(column), kind.byte_width)
    if pa.types.is_fixed_size_list(kind):
        is_known = pc.is_valid(column).to_numpy(zero_copy_only=False)
        values = np.full((len(column), kind.list_size), np.nan, np.float32)
        if is_known.any():
            values[is_known] = np.asarray(column.drop_null().to_pylist(), np.float32)
        return values
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)


def _objects(column: pa.ChunkedArray) -> NDArray[np.object_]:
    values = np.empty(len(column), object)
    values[:] = column.to_pylist()
    return values


def _one_chunk(column: pa.ChunkedArray, kind: pa.DataType) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], kind)
    return combined
