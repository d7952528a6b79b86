"""Index of the written shards: for tar one that a plan can read, for Parquet the shard and row of every sample."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..index.index import (
    BOX_CLASSES,
    CLASSES,
    KEYPOINT_NAMES,
    RELATIVE,
    SCHEMA,
    SOURCE,
    Index,
    names_metadata,
)
from .encoding import MODES, EncodingName

FORMATS = {"png": "png", "jpeg": "jpeg"}


def tar_index(records: pa.Table, source: Index, *, encoding: EncodingName, num_epochs: int) -> Index:
    """Build the index of tar shards; a sample is a range of its shard's file, from ``offset`` on.

    Shards are relative to the folder of the index, so that both can be moved together. Samples are identified by the hash
    of their bytes, since copying changes modification times. Arrays are not images: they are listed as unusable, with the
    reason.
    """
    num = len(records)
    keys = records["key"].to_pylist()
    if num_epochs > 1:
        keys = [f"epoch-{e}/{key}" for e, key in zip(records["epoch"].to_pylist(), keys, strict=True)]
    bad = "arrays and not pictures: read them with NumPy, or materialize to png or jpeg"
    shards = records["shard"].to_pylist()
    has_mask = pc.is_valid(records["mask_offset"]).to_pylist()
    columns: dict[str, Any] = {
        "key": keys,
        "uri": shards,
        "mtime_ns": [0] * num,
        "mode": [MODES.get(channels, "") for channels in records["channels"].to_pylist()],
        "format": [FORMATS.get(encoding, "")] * num,
        "orientation": [1] * num,
        "mask": [name if mask else None for name, mask in zip(shards, has_mask, strict=True)],
        "status": ["ok" if encoding in FORMATS else bad] * num,
    }
    for name in SCHEMA.names:
        if name not in columns:
            columns[name] = records[name].to_pylist() if name in records.column_names else [None] * num
    description = {"kind": "materialized", "root": ".", "split_from": "source"}
    metadata = {
        SOURCE: json.dumps(description).encode(),
        RELATIVE: b"1",
        **names_metadata(
            {CLASSES: source.classes, BOX_CLASSES: source.box_classes, KEYPOINT_NAMES: source.keypoint_names}
        ),
    }
    arrays = [pa.array(columns[field.name], type=field.type) for field in SCHEMA]
    return Index(pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata)), source.classes)


def parquet_index(records: pa.Table) -> pa.Table:
    """Build the list of all rows of Parquet shards; plans cannot read it, only indexes of files and tar shards."""
    sets = ["labels"] if records["labels"].null_count < len(records) else []
    own = ["key", "split", "epoch", "label", *sets, "width", "height", "channels"]
    return records.select([*own, "shard", "row", "bytes", "hash"])


class SplitLookup:
    """Looks up the split of a sample by its key. Thread-safe.

    Args:
        index: index of the source.
        split: the split that is read; None for all.
    """

    def __init__(self, index: Index, split: str | None) -> None:
        names = index.table["split"].unique().to_pylist()
        self._all: str | None = names[0] if len(names) == 1 else None
        self._of: dict[str, str | None] = {}
        if len(names) > 1:
            rows = index.rows(split)
            keys, splits = (index.table[name].take(pa.array(rows)).to_pylist() for name in ("key", "split"))
            self._of = dict(zip(keys, splits, strict=True))

    def __call__(self, key: str) -> str | None:
        """Return the split of a sample; None if it has none."""
        return self._of.get(key, self._all)
