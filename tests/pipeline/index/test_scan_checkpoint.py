"""An interrupted scan is resumed: scanned files are not opened again, unless they have changed since."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightwell.pipeline.errors import OutputError
from lightwell.pipeline.index import scan
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.scan_checkpoint import ScanCheckpoint
from lightwell.pipeline.index.sources import webdataset as reading
from pictures import make_folder, samples, write_tar
from PIL import Image


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixteen images in chunks of two; one is empty, one has a missing mask."""
    monkeypatch.setattr(scan, "LOCAL_CHUNK_FILES", 2)
    folder = make_folder(tmp_path / "photos", num_images=16)
    (folder / "cat" / "000.jpg").write_bytes(b"")
    return folder


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the opened files and shards."""
    names: list[str] = []
    read_header, read_samples = scan.read_header, reading.read_samples

    def header(uri: str) -> Any:
        names.append(Path(uri).name)
        return read_header(uri)

    def members(file: Any, found: Any, **options: Any) -> Any:
        names.append(str(found.bytes))
        return read_samples(file, found, **options)

    monkeypatch.setattr(scan, "read_header", header)
    monkeypatch.setattr(reading, "read_samples", members)
    return names


def stop_after(number: int) -> Any:
    def progress(done: int, total: int) -> None:
        if done >= number:
            raise KeyboardInterrupt

    return progress


def interrupt(source: Path, output: Path, number: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        build_index(
            source,
            progress=stop_after(number),
            checkpoint=ScanCheckpoint(output),
            num_threads=1,
            **options,
        )


def uninterrupted(source: Path, output: Path, **options: Any) -> bytes:
    build_index(source, **options).save(output)
    return output.read_bytes()


def test_scanned_files_are_not_opened_again_and_the_index_is_the_same(
    photos: Path, tmp_path: Path, opened: list[str]
) -> None:
    expected = uninterrupted(photos, tmp_path / "whole.parquet")
    output, said = tmp_path / "index.parquet", []
    interrupt(photos, output, 8)
    assert not output.exists()
    opened.clear()
    checkpoint = ScanCheckpoint(output, report=said.append)
    built = build_index(photos, checkpoint=checkpoint, num_threads=1)
    built.save(output)
    assert said == ["resuming an interrupted scan: 8 files are done"]
    assert sorted(opened) == [f"{number:03}.jpg" for number in range(1, 16, 2)]  # the dogs come last
    assert output.read_bytes() == expected
    assert [path.name for path in tmp_path.glob(".*")] == [".index.parquet.parts"]
    checkpoint.clear()
    assert list(tmp_path.glob(".*")) == []


def test_scanned_shards_are_not_read_again(tmp_path: Path, opened: list[str]) -> None:
    folder = tmp_path / "set"
    for number in range(4):
        write_tar(folder / f"part-{number:03}.tar", samples(4 * number, 2 + number))
    expected = uninterrupted(folder, tmp_path / "whole.parquet")
    output, said = tmp_path / "index.parquet", []
    interrupt(folder, output, 2)
    opened.clear()
    built = build_index(folder, checkpoint=ScanCheckpoint(output, report=said.append), num_threads=1)
    built.save(output)
    assert said == ["resuming an interrupted scan: 2 shards are done"]
    assert opened == [str((folder / f"part-00{number}.tar").stat().st_size) for number in (2, 3)]
    assert output.read_bytes() == expected


def test_a_file_that_changed_in_between_is_scanned_again(
    photos: Path, tmp_path: Path, opened: list[str]
) -> None:
    output = tmp_path / "index.parquet"
    interrupt(photos, output, 8)
    shutil.copy(photos / "dog" / "001.jpg", photos / "cat" / "002.jpg")
    os.utime(photos / "cat" / "004.jpg", ns=(1, 1))
    (photos / "cat" / "006.jpg").unlink()
    opened.clear()
    build_index(photos, checkpoint=ScanCheckpoint(output), num_threads=1).save(output)
    assert {"002.jpg", "004.jpg"} < set(opened)
    assert "008.jpg" not in opened
    assert output.read_bytes() == uninterrupted(photos, tmp_path / "whole.parquet")


def test_a_scan_can_be_interrupted_and_resumed_twice(photos: Path, tmp_path: Path, opened: list[str]) -> None:
    output = tmp_path / "index.parquet"
    interrupt(photos, output, 4)
    interrupt(photos, output, 10)
    opened.clear()
    build_index(photos, checkpoint=ScanCheckpoint(output), num_threads=1).save(output)
    assert len(opened) == 6
    assert output.read_bytes() == uninterrupted(photos, tmp_path / "whole.parquet")


@pytest.mark.parametrize("other", [{"hash_content": True}, {"previous": True}], ids=["hash", "previous"])
def test_parts_of_a_scan_with_other_arguments_are_deleted(
    photos: Path, tmp_path: Path, opened: list[str], other: dict[str, Any]
) -> None:
    output, said = tmp_path / "index.parquet", []
    interrupt(photos, output, 8)
    if "previous" in other:
        uninterrupted(photos, tmp_path / "older.parquet")
        other = {"previous": Index.load(tmp_path / "older.parquet")}
    opened.clear()
    built = build_index(photos, checkpoint=ScanCheckpoint(output, report=said.append), **other)
    assert said == []
    assert list((tmp_path / ".index.parquet.parts").iterdir()) == []
    assert len(opened) == (16 if "hash_content" in other else 0)
    assert build_index(photos, **other).table.equals(built.table, check_metadata=True)


def test_only_the_files_of_a_truncated_part_are_scanned_again(
    photos: Path, tmp_path: Path, opened: list[str]
) -> None:
    output = tmp_path / "index.parquet"
    with pytest.raises(KeyboardInterrupt):
        build_index(
            photos, progress=stop_after(8), checkpoint=ScanCheckpoint(output, interval_s=0), num_threads=1
        )
    parts = sorted((tmp_path / ".index.parquet.parts").iterdir())
    assert len(parts) == 4  # one for each chunk of two
    parts[0].write_bytes(parts[0].read_bytes()[:-20])
    opened.clear()
    build_index(photos, checkpoint=ScanCheckpoint(output), num_threads=1).save(output)
    assert len(opened) == 8 + 2
    assert output.read_bytes() == uninterrupted(photos, tmp_path / "whole.parquet")


def test_a_missing_mask_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "LOCAL_CHUNK_FILES", 2)
    make_folder(tmp_path, num_images=8, classes=("cat",))
    lines = [f"cat/{number:03}.jpg,masks/{number:03}.png" for number in range(8)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["path,mask", *lines]) + "\n")
    output = tmp_path / "index.parquet"
    interrupt(table, output, 4, label_column=None)
    (tmp_path / "masks").mkdir()
    for number in range(8):
        with Image.open(tmp_path / "cat" / f"{number:03}.jpg") as picture:
            Image.new("L", picture.size).save(tmp_path / "masks" / f"{number:03}.png")
    built = build_index(table, checkpoint=ScanCheckpoint(output), label_column=None)
    assert built.table["status"].to_pylist() == ["ok"] * 8


def test_an_unwritable_checkpoint_raises(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"expected to write .*choose a place"):
        build_index(photos, checkpoint=ScanCheckpoint(tmp_path / "file" / "index.parquet", interval_s=0))
