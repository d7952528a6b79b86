"""The summary of an index is short for any index, and its sums are complete."""

from __future__ import annotations

from pathlib import Path

from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.summary import MAX_CLASSES, unusable_rows, usable_rows
from pictures import make_folder


def test_images_are_counted_by_class_and_split(tmp_path: Path) -> None:
    for split, num in (("test", 2), ("train", 6), ("val", 4)):
        make_folder(tmp_path / split, num_images=num)
    assert usable_rows(build_index(tmp_path)) == (
        ["class", "train", "val", "test", "all"],
        [["cat", "3", "2", "1", "6"], ["dog", "3", "2", "1", "6"], ["all", "6", "4", "2", "12"]],
    )


def test_the_smallest_of_many_classes_share_a_row(tmp_path: Path) -> None:
    classes = tuple(f"kind {number:02}" for number in range(30))
    make_folder(tmp_path, num_images=40, classes=classes)
    _, rows = usable_rows(build_index(tmp_path, fractions={"train": 1.0}))
    assert len(rows) == MAX_CLASSES + 1
    assert rows[-2] == ["11 other classes", "11", "11"]
    assert rows[-1] == ["all", "40", "40"]
    assert sum(int(row[-1]) for row in rows[:-1]) == 40


def test_unusable_files_are_counted_by_reason(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=2)
    for number in range(3):
        (tmp_path / "cat" / f"{number}.jpg").write_bytes(bytes([number]) * 20)
    (tmp_path / "dog" / "empty.jpg").write_bytes(b"")
    built = build_index(tmp_path)
    assert unusable_rows(built)[1][0] == ["not a known image format", "3"]
    assert sum(int(count) for _, count in unusable_rows(built)[1]) == 4


def test_an_index_without_labels_has_a_row_for_them(tmp_path: Path) -> None:
    make_folder(tmp_path / "all", num_images=3, classes=(".",))
    assert usable_rows(build_index(tmp_path / "all", fractions={"test": 1.0})) == (
        ["class", "test", "all"],
        [["(no label)", "3", "3"]],
    )
