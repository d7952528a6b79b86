"""A memory-mapped index has the same rows, batches and fingerprint, and is rewritten when the Parquet file changes."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index import mmap_index
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.digest import digest_of
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.mmap_index import ChunkedTable, IntColumn
from lightwell.pipeline.memory import estimates
from lightwell.pipeline.memory.estimates import SampleSizes
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_feed
from pictures import make_folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of 13 images, which is mapped in chunks of four rows."""
    monkeypatch.setattr(mmap_index, "MMAP_MIN_ROWS", 10)
    monkeypatch.setattr(mmap_index, "CHUNK_ROWS", 4)
    photos = make_folder(tmp_path / "photos", num_images=13)
    (photos / "cat" / "004.jpg").write_bytes(b"")
    index = build_index(photos, fractions={"train": 0.7, "val": 0.3})
    (tmp_path / "made").mkdir()
    index.save(tmp_path / "made" / "index.parquet")
    pq.write_table(index.table, tmp_path / "made" / "index.parquet", row_group_size=2)
    return tmp_path / "made" / "index.parquet"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The Parquet files for which an Arrow file is written."""
    calls: list[Path] = []
    make = mmap_index._write

    def note(path: Path, *rest: Any) -> None:
        calls.append(path)
        make(path, *rest)

    monkeypatch.setattr(mmap_index, "_write", note)
    return calls


def hidden(path: Path) -> list[str]:
    return sorted(one.name for one in path.parent.iterdir() if one.name.startswith("."))


def test_rows_digest_and_batches_equal_those_of_a_loaded_index(
    path: Path, made: list[Path], tmp_path: Path
) -> None:
    held, found = Index.load(path), Index.open(path)
    assert found.table.equals(held.table, check_metadata=True)
    assert [len(batch) for batch in found.table.to_batches()] == [4, 4, 4, 1]
    assert found == Index(held.table, held.classes)
    assert found.digest == held.fingerprint() == found.fingerprint()
    assert hidden(path) == [".index.parquet.arrow", ".index.parquet.arrow.json"]
    policy = [{"Resize": {"height": 16, "width": 16}}]
    content = {"index": path, "preprocess": policy, "batch": {"size": 4}, "cache": tmp_path / "cache"}
    view = View("train", shuffle=True, num_epochs=2)
    plans = [Plan.model_validate({**content, **more}) for more in ({}, {"cache": None})]
    mapped_facts = [digest_feed(LocalEngine(num_threads=1).feed(plan, view)) for plan in plans]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmap_index, "MMAP_MIN_ROWS", 100)
        assert [digest_feed(LocalEngine(num_threads=1).feed(plan, view)) for plan in plans] == mapped_facts
    assert made == [path]


def test_a_changed_table_has_another_fingerprint(path: Path) -> None:
    found = Index.open(path)
    other = Index(found.table.slice(1), found.classes)
    assert other.fingerprint() == digest_of(found.table.slice(1)) != found.fingerprint()


@given(st.integers(0, 12), st.lists(st.integers(0, 11), max_size=20))
def test_chunked_table_returns_rows_in_the_requested_order(cut: int, rows: list[int]) -> None:
    table = pa.table(
        {"a": list(range(12)), "b": [str(number) if number % 3 else None for number in range(12)]}
    )
    chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut, 2), table.slice(cut + 2)])
    assert ChunkedTable(chunks).take(np.array(rows, np.int64)).equals(table.take(pa.array(rows, pa.int64())))


def test_a_rewritten_index_is_mapped_again(path: Path, made: list[Path]) -> None:
    first = Index.open(path)
    other = Index(first.table.slice(1), first.classes)
    other.save(path)
    assert hidden(path) == []
    assert Index.open(path) == other
    assert first.table["key"][0].as_py().endswith("000.jpg")  # who has mapped the old one keeps it
    pq.write_table(first.table, path)  # by somebody else
    assert Index.open(path) == first
    assert len(made) == 3


def test_concurrent_opens_write_the_arrow_file_once(path: Path, made: list[Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Index.open(path), range(8)))
    assert all(one == found[0] for one in found)
    assert made == [path]


@pytest.mark.parametrize("lost", ["half", "told", "other"])
def test_files_left_by_a_killed_process_are_not_read(path: Path, made: list[Path], lost: str) -> None:
    expected = Index.open(path)
    arrow, metadata = (path.with_name(name) for name in hidden(path))
    dead = path.with_name(f"..{path.name}.arrow.{'a' * 32}.tmp")
    dead.touch()
    if lost == "half":
        arrow.write_bytes(arrow.read_bytes()[:-8])
    elif lost == "other":  # a newer Arrow file is in its place, and what tells of it is not
        metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "arrow": "0" * 32}))
    else:
        metadata.write_text("{")
    assert Index.open(path).table.equals(expected.table)
    assert len(made) == 2
    assert not dead.exists()


def test_an_index_that_cannot_be_mapped_is_loaded(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with caplog.at_level(logging.WARNING):
        assert Index.open(path) == Index.load(path)
    assert "got No space left on device" in caplog.text
    assert "each process loads the index into its own memory" in caplog.text
    assert hidden(path) == []


def test_a_small_index_is_loaded_and_other_files_are_refused(
    path: Path, made: list[Path], tmp_path: Path
) -> None:
    Index(Index.load(path).table.slice(0, 9), ("cat", "dog")).save(path)
    assert len(Index.open(path)) == 9
    assert made == []
    (tmp_path / "wrong.parquet").write_text("no Parquet")
    with pytest.raises(SourceError, match="expected an index, got"):
        Index.open(tmp_path / "wrong.parquet")
    pq.write_table(pa.table({"key": list("abcdefghijkl")}), tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="another table"):
        Index.open(tmp_path / "other.parquet")


@given(st.integers(0, 12), st.lists(st.integers(0, 11), max_size=20), st.integers(1, 5))
def test_int_column_and_largest_images_equal_those_of_the_complete_column(
    cut: int, rows: list[int], number: int
) -> None:
    values = [7, None, 3, 12, 5, 5, 9, 1, None, 2, 30, 4]
    column = pa.array(values, pa.int32())
    chunks = pa.chunked_array([column[:cut], column[cut : cut + 2], column[cut + 2 :]])
    wanted = np.array([values[row] or 0 for row in rows], np.int64)
    found = IntColumn(chunks).take(np.array(rows, np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == wanted.tolist()
    sizes = SampleSizes(
        masked=False, _bytes=IntColumn(chunks), _width=IntColumn(chunks), _height=IntColumn(chunks)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "SLICE_ROWS", 3)
        largest = sizes.largest(np.array(rows, np.int64), number)
    assert sorted(largest.tolist()) == sorted((wanted**2).tolist())[-number:]
