"""Files that Lightwell reads back and that somebody else may have written: indexes, quarantine lists, names in reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightwell import Index, LightwellError, LocalEngine, Plan, SourceError, View, build_index
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.summary import remark_lines
from lightwell.pipeline.monitor.quarantine import read_quarantine
from lightwell.pipeline.text import printable
from pictures import make_folder


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """An index of four pictures."""
    build_index(make_folder(tmp_path / "photos", num_images=4)).save(tmp_path / "index.parquet")
    return tmp_path / "index.parquet"


def change(index: Path, name: str, values: list[Any], kind: pa.DataType | None = None) -> None:
    """Replace a column of an index file."""
    table = pq.read_table(index)
    place = table.column_names.index(name)
    pq.write_table(
        table.set_column(place, name, pa.array(values, kind or table.schema.field(name).type)), index
    )


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1, 2", b"{}", b"[" * 100_000, b'["a", 5]', b'"cat"', b"\xff\xfe", b"null"]
)
def test_class_names_of_an_index_that_are_no_list_of_names_are_one_plain_error(
    index: Path, text: bytes
) -> None:
    """The metadata of an index holds broken, nested or other JSON: one line says that it is no index."""
    table = pq.read_table(index)
    pq.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"lightwell.classes": text}), index
    )
    with pytest.raises(SourceError, match=r"(expected|expected) an index"):
        Index.open(index)


@pytest.mark.parametrize(
    "name", ["width", "height", "bytes", "mtime_ns", "orientation", "label", "key", "uri", "status", "split"]
)
def test_null_cells_of_an_index_cost_their_row_or_are_one_plain_error(index: Path, name: str) -> None:
    """A column of an index holds null where a value belongs: the row is not used, or one line refuses the index."""
    values = pq.read_table(index)[name].to_pylist()
    change(index, name, [None, *values[1:]])
    errors = {"on_error": "skip", "max_bad_share": 1.0}
    try:
        plan = Plan(index=index, preprocess=[{"Resize": {"height": 8, "width": 8}}], errors=errors)
        with LocalEngine(num_threads=1).feed(plan, View()) as feed:
            batches = list(feed)
            counts = feed.counts
    except LightwellError:
        return
    assert sum(len(batch) for batch in batches) == counts["used"]
    assert counts["used"] + counts["skipped"] == 4
    assert counts["used"] == (4 if name in ("split",) else 3)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "a\0b", "s3::memory://x", "simplecache::http://169.254.169.254/x"]
)
def test_uris_of_an_index_are_read_as_pictures_or_refused(index: Path, name: str) -> None:
    """An index names other files, chains of protocols or the metadata service: the row is quarantined, the others are used."""
    values = pq.read_table(index)["uri"].to_pylist()
    change(index, "uri", [name, *values[1:]])
    plan = Plan(
        index=index,
        preprocess=[{"Resize": {"height": 8, "width": 8}}],
        errors={"on_error": "skip", "max_bad_share": 1.0},
    )
    with LocalEngine(num_threads=1).feed(plan, View()) as feed:
        assert sum(len(batch) for batch in feed) == 3
        assert [entry["step"] for entry in feed.quarantine] == ["read"]


@pytest.mark.parametrize("line", ["{", "[1]", "5", '{"key": 5}', "\xff", "[" * 100_000])
def test_a_quarantine_list_of_others_is_read_or_refused_in_our_words(tmp_path: Path, line: str) -> None:
    """A quarantine.jsonl of an earlier run was edited: its lines are read, or one line says that it is damaged."""
    path = tmp_path / "quarantine.jsonl"
    path.write_text(line + "\n", encoding="latin-1")
    try:
        entries = read_quarantine(path)
    except LightwellError:
        return
    assert all(isinstance(entry, dict) for entry in entries)


def test_positions_of_others_are_refused(index: Path) -> None:
    """A position that a feed is to go on from is of another plan, or any JSON: it is refused before anything is read."""
    plan = Plan(index=index)
    for position in (
        {},
        {"epoch": -1},
        {"version": 10**30},
        {"plan": None, "epoch": "0"},
        {"step": [1]},
        {"": np.nan},
    ):
        with pytest.raises(PlanError):
            LocalEngine().feed(plan, View(), position)


def test_escape_sequences_of_class_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """A folder is named with escape sequences and characters that reverse text: summaries show them as escapes."""
    name = "cat\x1b[31m\u202egpj"
    make_folder(tmp_path / "photos", num_images=2, classes=(name, "dog"))
    (tmp_path / "photos" / "empty\x1b[2J").mkdir()
    built = build_index(tmp_path / "photos")
    assert name in built.classes
    shown = "\n".join(
        [printable(json.dumps(built.summary(), ensure_ascii=False)), *map(printable, remark_lines(built))]
    )
    assert "\x1b" not in shown
    assert "\u202e" not in shown
