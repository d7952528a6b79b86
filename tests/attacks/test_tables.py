"""Tables of strangers with anything in any place: a bad row costs itself, and the books add up."""

from __future__ import annotations

import csv
import gzip
import io
import os
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lightwell import SourceError, build_index
from pictures import make_picture, write_picture
from strangers import Strangers, remarks, statuses, tried

STRANGERS = Strangers()
EVEN = st.sampled_from([True, True, False])
GOOD = ["a.png", "b.png"]
BAD_PATHS = [
    None, "", " ", "../../../etc/passwd", "..", ".", "/", "/etc/passwd", "/dev/zero", "/dev/null", "/proc/self/environ",
    "folder", "pipe", "loop.png", "text.png", "empty.png", "gone.png", "file:///etc/passwd", "file://", "file:///%00",
    "http://user:pass@127.0.0.1:1/a.png", "http://169.254.169.254/latest", "http://[::ffff:169.254.169.254]/",
    "http://[", "http://", "://", "s3://", "ftp://host/a.png", "simplecache::file:///etc/passwd",
    "reference://::file:///etc/passwd", "zip://a.png::http://127.0.0.1:1/a.zip", "memory://nothing/a.png",
    "=cmd|' /C calc'!A0", "@SUM(1+1)*cmd", "\x1b[31mred", "a.png\x00.txt", "\u202egnp.a", "C:\\a.png", "\\\\host\\a.png",
    "~root/a.png", "$HOME/a.png", "`id`", "x" * 5000, "a/" * 2000, "\N{SNOWMAN}.png", "http://a b/\n", "data:,x",
]  # fmt: skip
CELLS = [
    None, "", "cat", "dog", "7", "007", "-1", "1e5", "999999999", "9" * 30, "9" * 5000, "nan", "inf", "1.5", "cat|dog", "|",
    "[1, 2]", "['a', ['b']]", "[" * 500, '{"a": 1}', "x" * 3000, "=1+1", "\x1b]0;x\x07", "é", "train", "Test", "val",
    "0,0,4,4", "0,0,-4,4", "nan,0,1,1", "1 2 3", "[[0,0,1e400,1]]", "[[0, 0, 4, 4], [1, 1]]", "../x", "a.png", "pipe", "folder",
    True, False, 0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63), 10**30, 0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e300,
    b"\xff\xfe", b"", [], ["cat"], ["cat", None], [1, 2], [[0.0, 0.0, 4.0, 4.0]], [[float("nan")] * 4], [["a"]], [[[1]]],
    {"a": 1}, Decimal("1.5"), Decimal("NaN"), date(1, 1, 1), datetime(2020, 1, 1), timedelta(1),
]  # fmt: skip
COLUMNS = [
    "label", "split", "mask", "boxes", "boxes_xywhn", "box_labels", "keypoints", "name", "class_name", "class", "x0", "y0",
    "x1", "y1", "path ", "Path", "", "\ufeffpath", "\x1b[0m", "path",
]  # fmt: skip
TYPES = [
    pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(), pa.bool_(),
    pa.null(), pa.date32(), pa.date64(), pa.timestamp("ns"), pa.timestamp("us", tz="UTC"), pa.time64("ns"), pa.duration("ns"),
    pa.decimal128(20, 3), pa.list_(pa.string()), pa.list_(pa.int64()), pa.list_(pa.list_(pa.float64())),
    pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()), pa.dictionary(pa.int8(), pa.string()),
    pa.list_(pa.float32(), 4), pa.binary(3),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good pictures, and what a path may lead to besides."""
    place = tmp_path_factory.mktemp("tables")
    for number, name in enumerate(GOOD):
        write_picture(place / name, make_picture(number, 8, 8))
    (place / "folder").mkdir()
    (place / "text.png").write_text("root:x:0:0")
    (place / "empty.png").touch()
    (place / "loop.png").symlink_to("loop.png")
    os.mkfifo(place / "pipe")
    return place


def as_csv(names: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for row in rows:
        writer.writerow(["" if cell is None else cell for cell in row])
    return text.getvalue()


@tried(600)
@given(
    bad=st.lists(st.tuples(st.sampled_from(BAD_PATHS), st.sampled_from(CELLS)), max_size=6),
    other=st.sampled_from(["label", "split", "mask", "name", "other"]),
    form=st.sampled_from(["csv", "parquet"]),
)
def test_a_row_that_makes_no_sense_costs_itself(
    folder: Path, bad: list[tuple[Any, Any]], other: str, form: str
) -> None:
    """Rows have paths of devices, pipes, secrets, servers and formulas, and any label: the others are used, none is lost."""
    rows = [[GOOD[0], "cat"], *map(list, bad), [GOOD[1], "dog"]]
    if other == "mask":
        rows[0][1] = rows[-1][1] = None
    if form == "csv":
        path = folder / "t.csv"
        path.write_text(as_csv(["path", other], rows), errors="surrogateescape")
    else:
        path = folder / "t.parquet"
        text = [
            [None if cell is None else str(cell).encode("utf-8", "replace").decode() for cell in column]
            for column in zip(*rows, strict=True)
        ]
        pq.write_table(pa.table({"path": text[0], other: text[1]}), path)
    index = STRANGERS.index(path, label_column="label" if other == "label" else None)
    assert index is not None
    found = statuses(index)
    assert len(index) + remarks(index, "merged") == len(rows)
    for place, name in ((0, GOOD[0]), (-1, GOOD[1])):
        assert found[name] == "ok" or sum(row[0] == name for row in rows) > 1, (place, found[name])
    assert sum(status == "ok" for status in found.values()) <= len(GOOD)


def column_of(kind: pa.DataType, cells: list[Any]) -> pa.Array:
    """Cells as a column of a type; null where one cannot be."""
    kept = []
    for cell in cells:
        try:
            pa.array([cell], kind)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            kept.append(None)
        else:
            kept.append(cell)
    return pa.array(kept, kind)


@tried(600)
@given(data=st.data())
def test_a_parquet_table_of_any_types_is_read_or_refused_in_our_words(
    folder: Path, data: st.DataObject
) -> None:
    """Columns of every type, twice, with nulls and lists in any place, and ones of boxes: rows, or one line."""
    names = [
        "path",
        "label",
        *data.draw(st.lists(st.sampled_from(COLUMNS), max_size=4, unique=data.draw(EVEN))),
    ]
    size = data.draw(st.integers(0, 5))
    columns = []
    for name in names:
        kind = data.draw(st.sampled_from([pa.string(), *TYPES] if name == "path" else TYPES))
        pool = [*GOOD, *BAD_PATHS, *CELLS[:8]] if name == "path" else CELLS
        cells = data.draw(st.lists(st.sampled_from(pool), min_size=size, max_size=size))
        columns.append(column_of(kind, cells))
    path = folder / "t.parquet"
    try:
        pq.write_table(pa.Table.from_arrays(columns, names), path)
    except pa.ArrowException:
        assume(False)
    index = STRANGERS.index(path, label_columns=data.draw(st.sampled_from([(), ("label",), ("name", "x0")])))
    if index is not None and not {"boxes", "boxes_xywhn", "keypoints", "x0"} & set(names):
        assert len(index) + remarks(index, "merged") == size


ENCODINGS = ["utf-8"] * 3 + ["utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32"]
JUNK = [
    "\0",
    "\r",
    "\r\n",
    "\n\n",
    '"',
    '""',
    ",",
    ",,,,",
    ";",
    "\t",
    "\ufeff",
    "\x1a",
    "a,b,c,d,e,f,g\n",
    "'",
    "\\",
]


@tried(600)
@given(data=st.data())
def test_a_csv_of_any_text_is_read_or_refused_in_our_words(folder: Path, data: st.DataObject) -> None:
    """A CSV in other encodings, with marks, zero bytes, quotes and cells in any place: rows, or one line."""
    names = [
        "path",
        "label",
        *data.draw(st.lists(st.sampled_from(COLUMNS), max_size=4, unique=data.draw(EVEN))),
    ]
    row = st.lists(st.sampled_from(CELLS), min_size=len(names) - 1, max_size=len(names) - 1)
    rows = [
        [data.draw(st.sampled_from([*GOOD, *BAD_PATHS])), *data.draw(row)]
        for _ in range(data.draw(st.integers(0, 4)))
    ]
    text = as_csv(names, rows)
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text)))
        text = text[:place] + data.draw(st.sampled_from(JUNK)) + text[place:]
    content = text.encode(data.draw(st.sampled_from(ENCODINGS)), "replace")
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.integers(0, len(content)))
        content = content[:place] + data.draw(st.binary(max_size=4)) + content[place:]
    path = folder / "t.csv"
    path.write_bytes(content)
    STRANGERS.index(path)


@tried(500)
@given(data=st.data())
def test_a_damaged_parquet_file_is_read_or_refused_in_our_words(folder: Path, data: st.DataObject) -> None:
    """A Parquet file with bytes changed, cut out or put in, its footer included: rows, or one line."""
    path = folder / "t.parquet"
    pq.write_table(
        pa.table({"path": GOOD, "label": ["cat", "dog"], "boxes": [[[0.0, 0.0, 4.0, 4.0]], None]}), path
    )
    content = path.read_bytes()
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.sampled_from([0, 1, 1, 1, 4, 50]))
        content = content[:place] + data.draw(st.binary(min_size=0, max_size=4)) + content[place + cut :]
    path.write_bytes(content)
    STRANGERS.index(path)


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.arrow", "t.feather", "t.tsv", "t.csv.gz", "t.xlsx"])
def test_other_kinds_of_tables_are_refused_by_name(folder: Path, name: str) -> None:
    """A table as JSON lines, Arrow, a spreadsheet or a compressed file: one line says what is read instead."""
    rows = pa.table({"path": GOOD})
    if name.endswith(("arrow", "feather")):
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
    elif name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(b"path\n" + b"a.png\n" * 10**6))
    else:
        (folder / name).write_text('{"path": "a.png"}\n{"path": "b.png"}\n')
    with pytest.raises(SourceError, match=r"expected|expected"):
        build_index(folder / name)
    (folder / name).unlink()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".tar", ".json", ".yaml"])
def test_a_source_that_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str, suffix: str) -> None:
    """A pipe, a device, a folder or a loop of links is named as a table, a shard or annotations: refused, nothing waits."""
    path = tmp_path / f"t{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(path)
    with pytest.raises(SourceError):
        build_index(path)


def test_enough_was_tried() -> None:
    """The count of what was tried above."""
    STRANGERS.check()
