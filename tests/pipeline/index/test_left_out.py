"""Indexing notes what it leaves out, merges, refuses and assumes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.sources.folder import list_folder
from lightwell.pipeline.index.sources.walk import scan_folder
from lightwell.pipeline.index.summary import remark_lines
from pictures import encoded, make_folder, write_tar


def remarks_of(index: Index) -> str:
    return "\n".join(remark_lines(index))


def columns(index: Index, *names: str) -> list[tuple[Any, ...]]:
    return list(zip(*(index.table[name].to_pylist() for name in names), strict=True))


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_junk_of_systems_and_tools_is_neither_class_nor_sample(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=4)
    touch(
        tmp_path, "__MACOSX/cat/._1.jpg", "lost+found/1.jpg", "cat/@eaDir/1.jpg/T.jpg", "cat/Thumbs.db",
        "cat/desktop.ini", "cat/~$x.jpg", "cat/1.jpg.part", "cat/README.txt", "$RECYCLE.BIN/1.jpg", ".Trash-0/1.jpg",
        "System Volume Information/1.jpg", ".ipynb_checkpoints/1.jpg", "cat/Icon\r", "cat/clip.mp4", "cat/a.zip",
    )  # fmt: skip
    index = build_index(tmp_path)
    assert index.classes == ("cat", "dog")
    assert len(index) == 4
    assert "10 files and folders of operating systems and tools" in remarks_of(index)
    assert "2 hidden files and folders" in remarks_of(index)
    assert "1 files that are no images by their suffix .txt (cat/README.txt)" in remarks_of(index)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train2017/a/1.jpg", "val2017/a/1.jpg"), {"train", "val"}),
        (("images/train/1.jpg", "images/val/1.jpg", "labels/train/1.png"), {"train", "val"}),
        (("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg"), {"train", "test"}),
        (("data/Train/a/1.jpg", "data/dev/a/1.jpg"), {"train", "val"}),
        (("training_set/a/1.jpg", "test_set/a/1.jpg"), {"train", "test"}),
        (("val/a/1.jpg", "dev/a/1.jpg", "train/a/1.jpg"), {"train", "val", "dev"}),
    ],
)
def test_split_folders_are_recognized_and_noted(
    tmp_path: Path, names: tuple[str, ...], splits: set[str]
) -> None:
    listing = list_folder(scan_folder(str(touch(tmp_path, *names))))
    assert set(listing.splits or ()) == splits
    assert set(listing.classes) <= {"a", "cat", "dog"}
    assert listing.remarks.count("assumed") > 0


def test_linked_folders_count_once(tmp_path: Path) -> None:
    for number in range(8):
        touch(tmp_path / "data", f"{number}/1.jpg")
        for other in range(8):
            if other != number:
                (tmp_path / f"data/{number}/to{other}").symlink_to(f"../{other}")
    listing = list_folder(scan_folder(str(tmp_path / "data")))
    assert len(listing.keys) == 8
    assert "56 links to folders that are listed already" in "\n".join(listing.remarks.lines())


def test_an_invalid_row_makes_only_itself_unusable(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=4)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    rows = [
        f"{names[0]},a", f"{names[0]},a", f"{names[1]},a", f"{names[1]},b", f"{names[2].replace('/', chr(92))},a",
        ",a", f"{'x' * 5000},a", "C:\\data\\1.jpg,a", "sftp://host/1.jpg,a", "http://ann:pw@host/1.jpg,a",
        "simplecache::http://host/1.jpg,a", "http://169.254.169.254/1.jpg,a", "http://2852039166/1.jpg,a",
        "reference::x,a", f"{names[3]},b", "one,two,three",
    ]  # fmt: skip
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    index = build_index(tmp_path / "t.csv")
    status = dict(columns(index, "key", "status"))
    assert status[names[0]] == status[names[2]] == status[names[3]] == "ok"
    assert "2 rows with this path differ in 'label' (a, b)" in status[names[1]]
    assert sum(one == "ok" for one in status.values()) == 3
    assert len(index) == 13
    assert "pw" not in str(index.table.to_pylist())
    assert "1 rows that repeat another one" in remarks_of(index)
    assert "1 lines of the table with another number of cells" in remarks_of(index)
    assert "1 backslashes of paths to slashes" in remarks_of(index)


def test_keys_contain_no_signatures_and_stay_unique(tmp_path: Path) -> None:
    uris = [f"memory://box/1.jpg?X-Signature=SECRET{number}" for number in range(2)]
    (tmp_path / "t.csv").write_text("path\n" + "\n".join(uris) + "\n")
    keys = build_index(tmp_path / "t.csv").table["key"].to_pylist()
    assert len(set(keys)) == 2
    assert not any("SECRET" in key for key in keys)


def members(path: Path, *infos: tuple[str, bytes | None, dict[str, Any]]) -> Path:
    with tarfile.open(path, "a") as tar:
        for name, data, fields in infos:
            info = tarfile.TarInfo(name)
            info.size = len(data or b"")
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data or b""))
    return path


def test_members_are_grouped_in_any_order(tmp_path: Path) -> None:
    photo = encoded(0)
    write_tar(
        tmp_path / "a.tar", {"1.cls": b"b", "0.jpg": photo, "1.jpg": photo, "0.cls": b"a", "2.json": b"{}"}
    )
    index = build_index(str(tmp_path / "a.tar"))
    assert columns(index, "key", "label") == [("a/0", 0), ("a/1", 1)]
    assert "1 labels and masks without an image (2.json)" in remarks_of(index)


def test_links_devices_and_unknown_members_give_a_row_or_a_remark(tmp_path: Path) -> None:
    photo = encoded(0)
    path = members(
        tmp_path / "a.tar",
        ("0.jpg", photo, {}),
        ("x/1.jpg", None, {"type": tarfile.LNKTYPE, "linkname": "0.jpg"}),
        ("x/2.jpg", None, {"type": tarfile.SYMTYPE, "linkname": "../later.jpg"}),
        ("x/3.jpg", None, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("x/4.jpg", None, {"type": tarfile.SYMTYPE, "linkname": "4.jpg"}),
        ("later.jpg", photo, {}),
        ("pipe.jpg", None, {"type": tarfile.FIFOTYPE}),
        ("5.raw", b"x", {}),
    )
    index = build_index(str(path))
    status = dict(columns(index, "key", "status"))
    assert [key for key, one in status.items() if one == "ok"] == ["a/0", "a/x/1", "a/x/2", "a/later"]
    assert "which is no file in this shard" in status["a/x/3"]
    assert "which is no file in this shard" in status["a/x/4"]
    assert "1 members with the extension .raw (5.raw)" in remarks_of(index)
    assert "1 members that are devices" in remarks_of(index)


def test_two_tars_in_one_file_are_read_as_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"0.jpg": encoded(0)})
    write_tar(tmp_path / "b.tar", {"1.jpg": encoded(1)})
    (tmp_path / "c.tar").write_bytes((tmp_path / "a.tar").read_bytes() + (tmp_path / "b.tar").read_bytes())
    index = build_index(str(tmp_path / "c.tar"))
    assert columns(index, "key", "status") == [("c/0", "ok"), ("c/1", "ok")]
    assert "1 tars behind an end mark" in remarks_of(index)


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    path = members(tmp_path / "a.tar", ("0.jpg", encoded(0), {"pax_headers": {"GNU.sparse.size": "9"}}))
    (status,) = build_index(str(path)).table["status"].to_pylist()
    assert "sparse" in status or status.startswith("broken shard")


@pytest.mark.parametrize(
    "label", [b"[" * 100_000, b"9" * 5000, b"NaN", b"\xff", b'{"label": NaN}', b'"\\ud800"']
)
def test_an_unreadable_label_leaves_only_its_sample_unlabelled(tmp_path: Path, label: bytes) -> None:
    photo = encoded(0)
    write_tar(
        tmp_path / "a.tar", {"0.jpg": photo, "0.json": label, "1.jpg": photo, "1.json": b'{"label": "cat"}'}
    )
    index = build_index(str(tmp_path / "a.tar"))
    assert index.table["status"].to_pylist() == ["ok", "ok"]
    assert index.classes[index.table["label"].to_pylist()[1]] == "cat"


def test_keys_are_unique_for_any_member_names(tmp_path: Path) -> None:
    photo = encoded(0)
    path = members(
        tmp_path / "s.tar",
        ("a.jpg", photo, {}),
        ("b.jpg", photo, {}),
        ("a.png", photo, {}),
        ("a~2.jpg", photo, {}),
    )
    keys = build_index(str(path)).table["key"].to_pylist()
    assert keys == ["s/a", "s/b", "s/a~3", "s/a~2"]


def test_an_index_of_images_with_several_classes(tmp_path: Path) -> None:
    make_folder(tmp_path, num_images=4)
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.jpg"))
    rows = [f"{name},{label}" for name, label in zip(names, ["x|y", "x", "", "y"], strict=True)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(rows) + "\n")
    build_index(tmp_path / "t.csv").save(tmp_path / "i.parquet")
    index = Index.load(tmp_path / "i.parquet")
    assert index.is_multi_label
    assert index.table["labels"].to_pylist() == [[0, 1], [0], None, [1]]
    assert index.classes == ("x", "y")


def test_a_folder_that_is_deleted_while_its_parent_is_listed_is_left_out_and_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.jpg", "b/2.jpg")
    listing = os.scandir

    def list_then_delete(path: str) -> Any:
        entries = list(listing(path))
        if (tmp_path / "b").exists():
            (tmp_path / "b" / "2.jpg").unlink()
            (tmp_path / "b").rmdir()
        return entries

    monkeypatch.setattr(os, "scandir", list_then_delete)
    folder = scan_folder(str(tmp_path))
    monkeypatch.undo()
    assert list(folder.walk()) == [str(tmp_path / "a" / "1.jpg")]
    assert folder.remarks.lines() == ["left out: 1 folders that were deleted while they were listed (b)"]
