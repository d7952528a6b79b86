"""Boxes and keypoints in tables: lists in common notations, or one row per box."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotation_formats import boxes_of, remarks_of
from lightwell import build_index
from scenes import Scene


@pytest.mark.parametrize(
    "cell",
    [
        "10,10,60,60;1,1,5,5",
        "10 10 60 60; 1 1 5 5",
        "[[10, 10, 60, 60], [1, 1, 5, 5]]",
        "[[10 10 60 60]\n [ 1  1  5  5]]",
        "[[10. 10. 60. 60.]\n [ 1.  1.  5.  5.]]",
        "[(10, 10, 60, 60), (1, 1, 5, 5)]",
        "((10,10,60,60),(1,1,5,5))",
        "[array([10, 10, 60, 60]), array([1, 1, 5, 5])]",
        "[10, 10, 60, 60], [1, 1, 5, 5]",
    ],
)
def test_lists_of_boxes_are_read_in_every_common_notation(cell: str, tmp_path: Path) -> None:
    Scene("a.png", 100, 100).save(tmp_path)
    (tmp_path / "t.csv").write_text(f'path,boxes\na.png,"{cell}"\n')
    index = build_index(tmp_path / "t.csv")
    assert index.table["boxes"].to_pylist() == [[[10, 10, 60, 60], [1, 1, 5, 5]]]


@pytest.mark.parametrize(
    "cell", ["10,10,60", "cat", "[[10, 10, 60]]", "[[a, b, c, d]]", "{}", "10,10,60,60;"]
)
def test_an_invalid_list_of_boxes_makes_only_its_row_unusable(cell: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Scene(name, 100, 100).save(tmp_path)
    (tmp_path / "t.csv").write_text(f'path,boxes\na.png,"{cell}"\nb.png,"1,1,5,5"\n')
    first, second = build_index(tmp_path / "t.csv").table["status"].to_pylist()
    assert second == "ok"
    if cell.endswith(";"):
        assert first == "ok"
    else:
        assert "expected rows of 4 numbers" in first


def test_rows_that_repeat_a_path_with_a_box_each_are_boxes_of_one_image(tmp_path: Path) -> None:
    Scene("a.png", 100, 100).save(tmp_path)
    (tmp_path / "t.csv").write_text('path,boxes,label\na.png,"10,10,60,60",cat\na.png,"1,1,5,5",dog\n')
    index = build_index(tmp_path / "t.csv")
    assert boxes_of(index) == {"a.png": [("cat", 10, 10, 60, 60), ("dog", 1, 1, 5, 5)]}
    assert index.table["label"].to_pylist() == [-1]
    assert remarks_of(index)["assumed: rows that are one box each"] == 2


def test_lists_of_boxes_leave_image_labels_as_they_are(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Scene(name, 100, 100).save(tmp_path)
    (tmp_path / "t.csv").write_text('path,label,boxes\na.png,cat,"1,1,5,5"\nb.png,dog,\n')
    index = build_index(tmp_path / "t.csv")
    assert index.classes == ("cat", "dog")
    assert index.table["label"].to_pylist() == [0, 1]
    assert index.box_classes == ()


def test_rows_of_one_image_that_name_several_splits_are_refused(tmp_path: Path) -> None:
    Scene("a.png", 100, 100).save(tmp_path)
    Scene("b.png", 100, 100).save(tmp_path)
    lines = ["path,x0,y0,x1,y1,split", "a.png,1,1,5,5,train", "a.png,2,2,5,5,val", "b.png,1,1,5,5,val"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    first, second = build_index(tmp_path / "t.csv").table["status"].to_pylist()
    assert "its 2 rows differ in 'split' (train, val)" in first
    assert second == "ok"


def test_keypoints_of_a_table_have_one_instance_per_box(tmp_path: Path) -> None:
    Scene("a.png", 100, 100).save(tmp_path)
    lines = ["path,boxes,keypoints", 'a.png,"[[1, 1, 9, 9]]","[[2, 3], [4, 5]]"']
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    index = build_index(tmp_path / "t.csv")
    assert index.table["keypoints"].to_pylist() == [[[2, 3, 2], [4, 5, 2]]]
    assert len(index.keypoint_names) == 2


@pytest.mark.parametrize(("names", "usable"), [("cat;dog", False), ("cat", False), ("", True)])
def test_names_without_boxes_make_only_their_row_unusable(names: str, usable: bool, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Scene(name, 100, 100).save(tmp_path)
    (tmp_path / "t.csv").write_text(f'path,boxes,box_labels\na.png,,{names}\nb.png,"1,1,5,5",cat\n')
    index = build_index(tmp_path / "t.csv")
    first, second = index.table["status"].to_pylist()
    assert second == "ok"
    assert (first == "ok") == usable
    if not usable:
        assert "expected 0 names, one per box" in first
