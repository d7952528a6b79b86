"""Schema of Parquet shards, with metadata that makes Hugging Face ``datasets`` decode images and show class names.

Images and masks are ``struct<bytes, path>``, which ``datasets`` decodes as its ``Image`` feature; other readers take ``bytes``.
Format of the metadata: https://huggingface.co/docs/datasets, ``Features``; key ``huggingface`` of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .encoding import EncodingName

if TYPE_CHECKING:
    from .shards import Layout

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FILES = ("image", "mask")


def parquet_schema(layout: Layout, encoding: EncodingName) -> pa.Schema:
    """Return the schema of a shard, equal for all shards of a source."""
    fields: list[tuple[str, pa.DataType]] = [
        ("key", pa.string()),
        ("split", pa.string()),
        ("epoch", pa.int64()),
        ("label", pa.int64()),
        ("class", pa.string()),
        *(
            [("labels", pa.list_(pa.int64())), ("classes", pa.list_(pa.string()))]
            if layout.has_label_sets
            else []
        ),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("encoding", pa.string()),
        ("image", pa.binary() if encoding == "npy" else FILE),
        *([("mask", FILE), ("has_mask", pa.bool_())] if layout.has_masks else []),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("box_labels", pa.list_(pa.int64())),
        ("box_classes", pa.list_(pa.string())),
        ("keypoints", pa.list_(pa.list_(pa.float32()))),
        ("keypoint_names", pa.list_(pa.string())),
    ]
    schema = pa.schema(fields)
    features = {field.name: _feature(field, layout) for field in schema}
    return schema.with_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})


def to_rows(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    """Convert samples to rows of a schema; files become structs of bytes and path."""
    return [{field.name: _cell(row, field) for field in schema} for row in rows]


def _cell(row: dict[str, Any], field: pa.Field) -> Any:
    value = row[field.name]
    return {"bytes": value, "path": None} if field.type == FILE and value is not None else value


def _feature(field: pa.Field, layout: Layout) -> dict[str, Any]:
    if field.name in _FILES and field.type == FILE:
        return {"_type": "Image"}
    if len(set(layout.classes)) == len(layout.classes):
        names = {"names": list(layout.classes), "_type": "ClassLabel"}
        if field.name == "label" and layout.has_labels:
            return names
        if field.name == "labels":
            return {"feature": names, "_type": "List"}
    return _feature_of(field.type)


def _feature_of(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature_of(kind.value_type), "_type": "List"}
    names = {pa.int8(): "int8", pa.float32(): "float32", pa.bool_(): "bool"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}
