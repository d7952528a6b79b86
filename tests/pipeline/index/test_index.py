"""The index: saving, loading, queries."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightwell.pipeline.errors import OutputError, SourceError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import SCHEMA, Index
from PIL import Image


@pytest.fixture
def index(tmp_path):
    for name in ("train/cat/1", "train/cat/2", "train/dog/1", "val/dog/1"):
        path = tmp_path / f"data/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    (tmp_path / "data/train/dog/bad.png").write_bytes(b"")
    return build_index(tmp_path / "data")


def test_an_index_survives_a_round_trip_through_parquet(tmp_path, index):
    index.save(tmp_path / "new/index.parquet")
    loaded = Index.load(tmp_path / "new/index.parquet")
    assert loaded == index
    assert loaded.table.schema.equals(SCHEMA)
    assert loaded.summary() == index.summary()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["index.parquet"]


def test_an_index_is_picklable(index):
    assert pickle.loads(pickle.dumps(index)) == index


def test_rows_are_the_usable_ones_of_a_split(index):
    assert index.rows().tolist() == [0, 1, 2, 4]
    assert index.rows("train").tolist() == [0, 1, 2]
    assert index.rows("validation").tolist() == index.rows("val").tolist() == [4]
    assert index.rows().dtype == np.int64


def test_an_unknown_split_lists_the_existing_ones(index):
    with pytest.raises(SourceError, match=r"\['train', 'val'\]; did you mean 'train'"):
        index.rows("trian")


def test_counts_are_stratified_and_add_up(index):
    counts = index.counts()
    good = {(row["split"], row["class"]): row["count"] for row in counts if row["status"] == "ok"}
    assert good == {("train", "cat"): 2, ("train", "dog"): 1, ("val", "dog"): 1}
    assert [row for row in counts if row["status"] != "ok"] == [
        {"split": "train", "class": None, "label": None, "status": "empty file: 0 bytes", "count": 1}
    ]
    assert sum(row["count"] for row in counts) == len(index) == 5


def test_the_summary_is_plain_data_that_adds_up(index):
    summary = index.summary()
    assert (summary["samples"], summary["usable"], summary["unusable"]) == (5, 4, 1)
    assert summary["splits"] == {"train": {"cat": 2, "dog": 1}, "val": {"dog": 1}}
    assert summary["formats"] == {"png": 4}


@pytest.mark.parametrize("column", ["key", "bytes", "mtime_ns", "label", "split"])
def test_the_fingerprint_changes_with_every_content_column(index, column):
    values = index.table[column].to_pylist()
    values[2] = f"{values[2]}!" if isinstance(values[2], str) else values[2] + 1
    position = SCHEMA.get_field_index(column)
    other = index.table.set_column(
        position, SCHEMA.field(column), pa.array(values, SCHEMA.field(column).type)
    )
    assert Index(other, index.classes).fingerprint() != index.fingerprint()


def test_the_fingerprint_does_not_depend_on_how_the_table_is_stored(index):
    parts = pa.concat_tables([index.table.slice(0, 2), index.table.slice(2)])
    assert Index(parts, index.classes).fingerprint() == index.fingerprint()


def test_a_missing_index_is_refused_with_a_hint(tmp_path, index):
    index.save(tmp_path / "index.parquet")
    with pytest.raises(
        SourceError, match=r"did you mean 'index.parquet'\? or make one with `lightwell index"
    ):
        Index.load(tmp_path / "indx.parquet")
    with pytest.raises(SourceError, match="got the folder"):
        Index.load(tmp_path)


def test_a_file_that_is_no_index_is_refused(tmp_path):
    (tmp_path / "a").write_text("hello")
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "b")
    for name in "ab":
        with pytest.raises(SourceError, match="expected an index, got"):
            Index.load(tmp_path / name)


def test_a_missing_column_is_named(tmp_path, index):
    pq.write_table(index.table.drop_columns("orientation"), tmp_path / "index.parquet")
    with pytest.raises(SourceError, match="expected a column 'orientation'"):
        Index.load(tmp_path / "index.parquet")


def test_a_column_of_the_wrong_type_is_refused(tmp_path, index):
    position = SCHEMA.get_field_index("width")
    table = index.table.set_column(position, "width", pa.array(["wide"] * len(index)))
    pq.write_table(table, tmp_path / "index.parquet")
    with pytest.raises(SourceError, match="expected an index"):
        Index.load(tmp_path / "index.parquet")


def test_bit_rot_is_detected(tmp_path, index):
    path = tmp_path / "index.parquet"
    index.save(path)
    whole = bytearray(path.read_bytes())
    whole[60] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(SourceError, match="expected an index"):
        Index.load(path)


def test_a_failed_write_raises_and_keeps_the_old_file(tmp_path, index):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="choose a place that can be written"):
        index.save(tmp_path / "file/index.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        index.save(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "file", "folder"]


def test_indexing_loads_no_model_library():
    code = "import lightwell.pipeline.index.build, sys; print({'torch', 'cv2', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


ANNOTATIONS = {
    "boxes": [[1.0, 2.0, 5.0, 6.0]],
    "box_labels": [1],
    "keypoints": [[3.0, 4.0, 2.0]],
    "mask": "/m.png",
}


def annotated(index):
    """The index with annotations in its second row."""
    table = index.table
    for name, value in ANNOTATIONS.items():
        column = pa.array([None, value, *[None] * (len(index) - 2)], SCHEMA.field(name).type)
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return Index(table, index.classes, box_classes=("car", "tree"), keypoint_names=("nose",))


def test_annotations_and_their_names_survive_a_round_trip_through_parquet(tmp_path, index):
    found = annotated(index)
    found.save(tmp_path / "index.parquet")
    for loaded in (
        Index.load(tmp_path / "index.parquet"),
        Index.open(tmp_path / "index.parquet", min_rows=1),
    ):
        assert (loaded.box_classes, loaded.keypoint_names) == (("car", "tree"), ("nose",))
        assert {name: loaded.table[name][1].as_py() for name in ANNOTATIONS} == ANNOTATIONS
        assert Index(loaded.table.slice(1), loaded.classes).box_classes == ("car", "tree")


@pytest.mark.parametrize("name", ANNOTATIONS)
def test_the_fingerprint_changes_with_every_kind_of_annotation(index, name):
    full = annotated(index)
    gone = pa.nulls(len(index), SCHEMA.field(name).type)
    other = full.table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), gone)
    assert Index(other, index.classes).fingerprint() != full.fingerprint()


def test_an_older_index_without_box_labels_and_keypoints_is_read(tmp_path, index):
    pq.write_table(index.table.drop_columns(["box_labels", "keypoints"]), tmp_path / "index.parquet")
    loaded = Index.load(tmp_path / "index.parquet")
    assert loaded == index
    assert loaded.fingerprint() == index.fingerprint()
