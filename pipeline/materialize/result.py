"""The index of what was written: for tar shards one that a plan reads, for Parquet the place of every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..dataset.index import BOX_CLASSES, CLASSES, KEYPOINT_NAMES, SCHEMA, SOURCE, Index, names_metadata
from .encoding import MODES, EncodingName

FORMATS = {"png": "png", "jpeg": "jpeg"}


def tar_index(
    records: pa.Table, source: Index, folder: Path, *, encoding: EncodingName, num_epochs: int
) -> Index:
    """Make the index of tar shards: a sample is its shard's file, from ``offset`` on.

    Arrays are no pictures: they are listed as samples that cannot be used, with the reason.
    """
    shards = records["shard"].to_pylist()
    mtimes = {name: (folder / name).stat().st_mtime_ns for name in set(shards)}
    uris = {name: str((folder / name).resolve()) for name in mtimes}
    num = len(shards)
    keys = records["key"].to_pylist()
    if num_epochs > 1:
        keys = [f"epoch-{e}/{key}" for e, key in zip(records["epoch"].to_pylist(), keys, strict=True)]
    bad = "arrays and not pictures: read them with NumPy, or materialize to png or jpeg"
    has_mask = pc.is_valid(records["mask_offset"]).to_pylist()
    columns: dict[str, Any] = {
        "key": keys,
        "uri": [uris[name] for name in shards],
        "mtime_ns": [mtimes[name] for name in shards],
        "mode": [MODES.get(channels, "") for channels in records["channels"].to_pylist()],
        "format": [FORMATS.get(encoding, "")] * num,
        "orientation": [1] * num,
        "mask": [uris[name] if mask else None for name, mask in zip(shards, has_mask, strict=True)],
        "split": splits_of(records, source),
        "status": ["ok" if encoding in FORMATS else bad] * num,
        "etag": [None] * num,
    }
    for name in SCHEMA.names:
        if name not in columns:
            columns[name] = records[name].to_pylist() if name in records.column_names else [None] * num
    description = {"kind": "materialized", "root": str(folder.resolve()), "split_from": "source"}
    names = {
        CLASSES: source.classes,
        BOX_CLASSES: source.box_classes,
        KEYPOINT_NAMES: source.keypoint_names,
    }
    metadata = {**names_metadata(names), SOURCE: json.dumps(description).encode()}
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)), source.classes)


def parquet_index(records: pa.Table, source: Index) -> pa.Table:
    """Make the list of all rows of Parquet shards; no index for a plan, which reads files and tar shards."""
    wanted = ("key", "epoch", "label", "width", "height", "channels", "shard", "row", "bytes", "hash")
    return records.select(wanted).append_column("split", pa.array(splits_of(records, source), pa.string()))


def splits_of(records: pa.Table, source: Index) -> list[str | None]:
    """Look up the split of every record's sample."""
    rows = pc.index_in(records["key"].combine_chunks(), value_set=source.table["key"].combine_chunks())
    splits: list[str | None] = source.table["split"].take(rows).to_pylist()
    return splits
