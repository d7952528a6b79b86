"""Building an index: no file is lost, and none is read twice."""

from __future__ import annotations

import os

import pytest
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from PIL import Image


def _image(path, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, format="bmp", **options)
    return path


def _row(index, key):
    return next(row for row in index.table.to_pylist() if row["key"] == key)


def test_every_file_becomes_a_row_and_bad_ones_get_a_status(tmp_path):
    _image(tmp_path / "cat/good.jpg")
    (tmp_path / "cat/zero.jpg").write_bytes(b"")
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog/text.png").write_text("hello, I am no image")
    (tmp_path / "dog/gone.png").symlink_to("nowhere")
    index = build_index(tmp_path)
    assert {row["key"]: row["status"].split(":")[0] for row in index.table.to_pylist()} == {
        "cat/good.jpg": "ok",
        "cat/zero.jpg": "empty file",
        "dog/text.png": "not a known image format",
        "dog/gone.png": "cannot be opened",
    }
    good = _row(index, "cat/good.jpg")
    assert (good["width"], good["height"], good["format"], good["label"]) == (8, 6, "bmp", 0)
    assert good["uri"] == str(tmp_path / "cat/good.jpg")
    assert good["bytes"] == (tmp_path / "cat/good.jpg").stat().st_size
    assert good["mtime_ns"] == (tmp_path / "cat/good.jpg").stat().st_mtime_ns


def test_a_folder_of_broken_files_is_an_index_without_usable_rows(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    index = build_index(tmp_path)
    assert len(index) == 1
    with pytest.raises(SourceError, match=r"none of them usable \(a.jpg: empty file: 0 bytes\)"):
        index.rows()


def test_a_file_name_that_is_not_utf8_gets_a_status(tmp_path):
    _image(tmp_path / "a.bmp").rename(tmp_path / os.fsdecode(b"\xff.bmp"))
    index = build_index(tmp_path)
    assert _row(index, "\\xff.bmp")["status"].endswith("its name is not UTF-8; rename it")
    index.save(tmp_path / "index.parquet")
    assert Index.load(tmp_path / "index.parquet") == index


def test_refreshing_opens_only_what_changed(tmp_path):
    paths = [_image(tmp_path / f"cat/{number}.bmp") for number in range(5)]
    first = build_index(tmp_path)
    # Another header in as many bytes at the same time: only opening the file would show it.
    stamp = paths[0].stat()
    _image(paths[0], (6, 8))
    paths[0].write_bytes(paths[0].read_bytes().ljust(stamp.st_size, b"\0")[: stamp.st_size])
    os.utime(paths[0], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    _image(paths[1], (20, 20))
    os.utime(paths[2], ns=(1, 1))
    paths[3].unlink()
    _image(tmp_path / "dog/new.bmp", (3, 3))
    second = build_index(tmp_path, previous=first)
    assert (second.summary()["source"]["read"], second.summary()["source"]["reused"]) == (3, 2)
    sizes = {row["key"]: (row["width"], row["height"]) for row in second.table.to_pylist()}
    assert sizes == {
        "cat/0.bmp": (8, 6),
        "cat/1.bmp": (20, 20),
        "cat/2.bmp": (8, 6),
        "cat/4.bmp": (8, 6),
        "dog/new.bmp": (3, 3),
    }
    assert build_index(tmp_path).table["width"].to_pylist()[0] == 6


def test_refreshing_retries_files_that_could_not_be_opened(tmp_path):
    (tmp_path / "t.csv").write_text("path,mask\n1.bmp,1.png\n2.bmp,\n")
    _image(tmp_path / "1.bmp")
    first = build_index(tmp_path / "t.csv")
    assert _row(first, "1.bmp")["status"].startswith("mask not found: ")
    assert _row(first, "2.bmp")["status"] == "cannot be opened: file not found"
    _image(tmp_path / "2.bmp")
    Image.new("L", (8, 6)).save(tmp_path / "1.png")
    assert build_index(tmp_path / "t.csv", previous=first).rows().tolist() == [0, 1]


def test_new_files_do_not_change_the_split_of_other_files(tmp_path):
    for number in range(30):
        _image(tmp_path / f"{number}.bmp", (1, 1))
    first = build_index(tmp_path, fractions={"train": 0.5, "test": 0.5}, seed=3)
    for number in range(30, 60):
        _image(tmp_path / f"{number}.bmp", (1, 1))
    second = build_index(tmp_path, fractions={"train": 0.5, "test": 0.5}, seed=3, previous=first)
    assert second.summary()["source"]["moved"] == 0
    assert (
        build_index(tmp_path, fractions={"train": 0.5, "test": 0.5}, seed=4, previous=first).summary()[
            "source"
        ]["moved"]
        > 0
    )
    splits = dict(zip(second.table["key"].to_pylist(), second.table["split"].to_pylist(), strict=True))
    assert all(splits[row["key"]] == row["split"] for row in first.table.to_pylist())
    assert set(splits.values()) == {"train", "test"}


def test_splits_of_the_source_override_fractions(tmp_path):
    _image(tmp_path / "train/a/1.bmp")
    _image(tmp_path / "test/a/1.bmp")
    index = build_index(tmp_path, fractions={"other": 1.0})
    assert index.table["split"].to_pylist() == ["test", "train"]
    assert index.summary()["source"]["split_from"] == "source"


def test_the_result_does_not_depend_on_the_number_of_threads(tmp_path):
    for number in range(200):
        (tmp_path / f"{number}.jpg").write_bytes(b"BM" * (number % 3))
    assert build_index(tmp_path, num_threads=1) == build_index(tmp_path, num_threads=7)


def test_progress_reaches_the_end_in_order(tmp_path):
    for number in range(150):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    seen = []
    build_index(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (150, 150)


def test_an_exception_of_the_progress_callback_stops_indexing(tmp_path):
    _image(tmp_path / "1.bmp")

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_index(tmp_path, progress=stop)


def test_a_table_becomes_an_index_with_boxes_masks_and_names(tmp_path):
    _image(tmp_path / "images/1.bmp")
    _image(tmp_path / "masks/1.png")
    (tmp_path / "labels.csv").write_text(
        'file,class_index,name,split,mask,boxes_xyxy\nimages/1.bmp,2,"sea, snake",train,masks/1.png,'
        '"1,2,3,4;0,0,1,1"\n'
    )
    index = build_index(tmp_path / "labels.csv", path_column="file", label_column="class_index")
    row = _row(index, "images/1.bmp")
    assert (row["label"], index.classes[2], row["split"]) == (2, "sea, snake", "train")
    assert row["boxes"] == [[1, 2, 3, 4], [0, 0, 1, 1]]
    assert row["mask"] == str(tmp_path / "masks/1.png")


def test_a_missing_source_is_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(SourceError, match="did you mean 'pictures'"):
        build_index(tmp_path / "picture")


def test_a_source_of_another_kind_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"expected a folder, a .csv or a .parquet file"):
        build_index(_image(tmp_path / "1.jpg"))


def test_wrong_arguments_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(SourceError, match="fractions"):
        build_index(tmp_path / "missing", fractions={"train": 0.3})
    with pytest.raises(SourceError, match="num_threads"):
        build_index(tmp_path / "missing", num_threads=0)


def test_an_empty_class_is_reported(tmp_path):
    _image(tmp_path / "cat/1.bmp")
    (tmp_path / "dog").mkdir()
    assert build_index(tmp_path).summary()["empty_classes"] == ["dog"]
