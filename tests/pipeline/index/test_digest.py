"""The digest of an index is the one stored in checkpoints by earlier versions, in constant memory."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.index import digest
from lightwell.pipeline.index.digest import digest_of


def digest_by_lists(table: pa.Table) -> str:
    """Reference implementation in plain Python."""
    found = hashlib.blake2b(digest_size=16)
    found.update(str(len(table)).encode())
    for name in ("bytes", "mtime_ns", "label"):
        found.update(np.ascontiguousarray(table[name].to_numpy(), dtype="<i8").tobytes())
    for name in ("key", "split"):
        texts = ["\1" if text is None else text for text in table[name].to_pylist()]
        found.update("\0".join(texts).encode() + b"\0\0")
    for name in ("etag", "hash"):
        if table[name].null_count < len(table):
            found.update(json.dumps([name, table[name].to_pylist()]).encode())
    masks = table["mask"].to_pylist()
    if any(mask is not None for mask in masks):
        found.update(b"[mask]" + bytes(mask is not None for mask in masks))
    for name in ("boxes", "box_labels", "keypoints"):
        level = table[name].to_pylist()
        if all(value is None for value in level):
            continue
        found.update(f"[{name}]".encode())
        for _ in range(1 if name == "box_labels" else 2):
            found.update(np.array([-1 if one is None else len(one) for one in level], "<i4").tobytes())
            level = [value for one in level if one is not None for value in one]
        found.update(np.array(level, "<i8" if name == "box_labels" else "<f4").tobytes())
    return found.hexdigest()


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\1"), max_size=8)
number = st.integers(-(2**62), 2**62)
places = st.none() | st.lists(st.lists(st.floats(0, 9, width=32), max_size=4), max_size=3)
row = st.fixed_dictionaries(
    {
        "bytes": number,
        "mtime_ns": number,
        "label": st.integers(-1, 5),
        "key": text,
        "split": st.none() | text,
        "etag": st.none() | text,
        "hash": st.none() | st.sampled_from(["ab12", "cd34"]),
        "mask": st.none() | text,
        "boxes": places,
        "box_labels": st.none() | st.lists(st.integers(-1, 5), max_size=3),
        "keypoints": places,
    }
)
SCHEMA = pa.schema(
    [
        *((name, pa.int64()) for name in ("bytes", "mtime_ns", "label")),
        *((name, pa.string()) for name in ("key", "split", "etag", "hash", "mask")),
        *((name, pa.list_(pa.list_(pa.float32()))) for name in ("boxes", "keypoints")),
        ("box_labels", pa.list_(pa.int64())),
    ]
)


@pytest.mark.parametrize("slice_rows", [1, 3, 1 << 16])
@given(rows=st.lists(row, max_size=8), cut=st.integers(0, 8))
def test_the_digest_equals_the_reference_for_any_chunks(
    slice_rows: int, rows: list[dict[str, object]], cut: int
) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "SLICE_ROWS", slice_rows)
        assert digest_of(chunks) == digest_by_lists(table)


def test_the_digest_of_a_fixed_table_is_stable() -> None:
    rows = [
        {"bytes": 7, "mtime_ns": 1 << 60, "label": 0, "key": "cat/é.jpg", "split": "train", "etag": '"a"'},
        {"bytes": 9, "mtime_ns": 3, "label": -1, "key": "dog/1.png", "split": None, "etag": None},
    ]
    table = pa.Table.from_pylist([{"hash": None, **one} for one in rows], schema=SCHEMA)
    assert digest_of(table) == digest_by_lists(table) == "37e047d2d8515a75ce852ec72c36d604"


def test_plain_strings_are_serialized_like_json() -> None:
    tags = [f"{number:x}" for number in range(100)]
    for column in (tags, [*tags[:-1], None], [*tags[:-1], 'a"b\\'], [*tags[:-1], "é"]):
        array = pa.chunked_array([column[:50], column[50:]], pa.string())
        assert bytes(digest._as_json(array)).decode() == json.dumps(column)[1:-1]
