"""Sources: listings of folders and tables, before a file is opened."""

from __future__ import annotations

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index.sources.folder import list_folder as list_files
from lightwell.pipeline.index.sources.table import list_table
from lightwell.pipeline.index.sources.walk import scan_folder


def list_folder(path):
    return list_files(scan_folder(str(path)))


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def _rows(listing):
    names = [listing.classes[label] if label >= 0 else None for label in listing.labels]
    return list(zip(listing.keys, names, listing.splits or [None] * len(names), strict=True))


def test_class_folders_give_sorted_classes_and_include_subfolders(tmp_path):
    listing = list_folder(_touch(tmp_path, "dog/b.jpg", "cat/x/y/a.jpg", "cat/.hidden.jpg", ".git/a.jpg"))
    assert listing.kind == "folder"
    assert listing.splits is None
    assert _rows(listing) == [("cat/x/y/a.jpg", "cat", None), ("dog/b.jpg", "dog", None)]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
def test_split_folders_above_class_folders_are_recognized_by_common_names(tmp_path, val):
    listing = list_folder(_touch(tmp_path, "train/a/1.jpg", f"{val}/b/1.jpg", "test/a/1.jpg", "LICENSE"))
    assert sorted(_rows(listing)) == sorted(
        [("train/a/1.jpg", "a", "train"), (f"{val}/b/1.jpg", "b", "val"), ("test/a/1.jpg", "a", "test")]
    )
    assert listing.notes["outside"] == ["LICENSE"]


def test_a_test_split_may_be_without_labels(tmp_path):
    listing = list_folder(_touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"))
    assert ("test/1.jpg", None, "test") in _rows(listing)
    assert listing.classes == ("a", "b")


def test_one_split_name_among_classes_is_a_class(tmp_path):
    listing = list_folder(_touch(tmp_path, "bus/1.jpg", "train/1.jpg"))
    assert (listing.classes, listing.splits) == (("bus", "train"), None)


def test_a_flat_folder_has_no_labels_and_leaves_tables_and_annotations_out(tmp_path):
    listing = list_folder(_touch(tmp_path, "1.jpg", "2.png", "index.parquet", "labels.csv", "notes/1.xml"))
    assert (listing.kind, listing.classes, listing.keys) == ("flat", (), ["1.jpg", "2.png"])
    assert listing.notes["num_side_files"] == 3


def test_an_empty_folder_is_no_class_and_is_named(tmp_path):
    _touch(tmp_path, "cat/1.jpg", "annotations/1.xml")
    (tmp_path / "bird").mkdir()
    listing = list_folder(tmp_path)
    assert listing.classes == ("cat",)
    assert listing.notes["empty_classes"] == ["bird"]
    assert "1 empty folders, which are no classes (bird)" in listing.remarks.lines()[0]


def test_links_are_followed_but_cycles_are_not(tmp_path):
    _touch(tmp_path / "data", "cat/1.jpg")
    (tmp_path / "data/cat/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/dog").symlink_to(_touch(tmp_path / "far", "2.jpg"))
    (tmp_path / "data/cat/self").symlink_to("self")
    assert list_folder(tmp_path / "data").keys == ["cat/1.jpg", "cat/self", "dog/2.jpg"]


def test_a_file_name_that_is_not_utf8_is_listed(tmp_path):
    _touch(tmp_path, "cat/1.jpg", os.fsdecode(b"cat/\xff.jpg"))
    assert len(list_folder(tmp_path).keys) == 2


@pytest.mark.parametrize("inside", [(), (".hidden.jpg",), ("labels.csv",)])
def test_a_folder_without_files_is_refused(tmp_path, inside):
    with pytest.raises(SourceError, match="no files in it"):
        list_folder(_touch(tmp_path, *inside))


def _csv(tmp_path, text, **kwargs):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return list_table(
        path, kwargs.pop("path_column", "path"), kwargs.pop("label_column", "label"), kwargs.pop("root", None)
    )


def test_text_labels_are_sorted_and_empty_ones_are_none(tmp_path):
    listing = _csv(tmp_path, "path,label\nx/1.jpg,dog\n2.jpg,cat\n3.jpg,\n")
    assert (listing.classes, listing.labels) == (("cat", "dog"), [1, 0, -1])
    assert listing.uris[0] == str(tmp_path / "x/1.jpg")
    assert listing.keys[0] == "x/1.jpg"


def test_integers_are_class_numbers(tmp_path):
    listing = _csv(tmp_path, "path,label\n1.jpg,5\n2.jpg,2\n3.jpg,\n")
    assert (listing.labels, listing.classes) == ([5, 2, -1], ("0", "1", "2", "3", "4", "5"))


def test_a_name_column_names_its_class_numbers(tmp_path):
    listing = _csv(
        tmp_path,
        'file,class_index,name\n1.jpg,3,"a, b"\n2.jpg,1,c\n',
        path_column="file",
        label_column="class_index",
    )
    assert listing.classes == ("0", "c", "2", "a, b")


def test_a_name_column_with_file_names_is_ignored(tmp_path):
    listing = _csv(tmp_path, "path,label,name\n1.jpg,0,one\n2.jpg,0,two\n")
    assert listing.classes == ("0",)


def test_split_mask_and_boxes_are_read(tmp_path):
    listing = _csv(
        tmp_path,
        'path,split,mask,boxes\n1.jpg,validation,m/1.png,"1,2,3,4;5,6,7,8.5"\n2.jpg,holdout,,\n',
    )
    assert listing.splits == ["val", "holdout"]
    assert listing.masks == [str(tmp_path / "m/1.png"), None]
    assert listing.boxes == [[[1, 2, 3, 4], [5, 6, 7, 8.5]], []]
    assert (listing.classes, listing.labels) == ((), [-1, -1])


def test_parquet_with_lists_reads_as_csv_does(tmp_path):
    table = pa.table(
        {"path": ["1.jpg", "2.jpg"], "label": ["b", "a"], "boxes": [[[1.0, 2.0, 3.0, 4.0]], None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    listing = list_table(tmp_path / "t.parquet", "path", "label", tmp_path / "images")
    assert listing.boxes == [[[1, 2, 3, 4]], None]
    assert listing.labels == [1, 0]
    assert listing.uris == [str(tmp_path / "images/1.jpg"), str(tmp_path / "images/2.jpg")]


def test_absolute_paths_outside_the_root_keep_their_name(tmp_path):
    assert _csv(tmp_path, "path,label\n/elsewhere/1.jpg,a\n").keys == ["/elsewhere/1.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pth,label\n1.jpg,a\n", "expected a column 'path'.*did you mean 'pth'"),
        ("path,labels\n1.jpg,a\n", "expected a column 'label'.*did you mean 'labels'"),
        ("path,kind\n1.jpg,a\n", "expected a column 'label'.*name the right one with --label-column"),
        ("path,label\n,a\n,b\n", "expected a path in column 'path', got none in any row"),
        ("path,label\n", "with none"),
        ("", "expected a CSV or Parquet table"),
        ("path,label\n1.jpg\n2.jpg,a,b\n", "with none"),
        ("path;label\n1.jpg;a\n", "with commas between its cells"),
        ("path,label\n1.jpg,0.5\n", "expected class names or whole numbers, got '0.5'"),
    ],
)
def test_an_invalid_table_is_refused_with_a_hint(tmp_path, text, message):
    with pytest.raises(SourceError, match=message):
        _csv(tmp_path, text)


def test_a_damaged_parquet_file_is_refused(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 nonsense PAR1")
    with pytest.raises(SourceError, match="expected a CSV or Parquet table"):
        list_table(tmp_path / "t.parquet", "path", "label", None)


def test_labels_can_be_disabled(tmp_path):
    assert _csv(tmp_path, "path,caption\n1.jpg,a\n", label_column=None).labels == [-1]
