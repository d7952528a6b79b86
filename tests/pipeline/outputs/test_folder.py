"""Output folders: names are claimed before they are written, and only listed files are deleted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lightwell.pipeline.errors import OutputError, RequestError
from lightwell.pipeline.outputs.folder import OutputFolder, matches
from lightwell.pipeline.outputs.manifest import LOCK_NAME, MANIFEST_NAME, Manifest


def opened(path: Path, outputs: Sequence[str] | None = ("a.json", "part-*.bin"), **options: Any) -> Any:
    return OutputFolder.open(path, kind="Test", outputs=outputs, **options)


def test_a_missing_folder_is_created_with_only_the_manifest(tmp_path: Path) -> None:
    with opened(tmp_path / "new" / "out") as folder:
        assert (folder.path / LOCK_NAME).is_file()
        folder.claim("a.json")
        (folder.path / "a.json").write_text("{}")
        folder.complete()
    assert sorted(path.name for path in folder.path.iterdir()) == [MANIFEST_NAME, "a.json"]
    assert Manifest.load(folder.path) == Manifest(kind="Test", files={"a.json": 2})


def test_a_name_is_in_the_manifest_before_its_file_is_written(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.claim("part-0.bin")
        assert json.loads((tmp_path / MANIFEST_NAME).read_text())["files"] == {"part-0.bin": None}


def test_files_of_an_earlier_result_are_deleted_at_the_end(tmp_path: Path) -> None:
    for names in (["a.json", "part-0.bin", "part-1.bin"], ["part-0.bin"]):
        with opened(tmp_path) as folder:
            folder.claim(*names)
            for name in names:
                (tmp_path / name).write_text(name)
            assert {(tmp_path / name).exists() for name in ("a.json", "part-1.bin")} == {True}
            gone = folder.complete()
    assert gone == ["a.json", "part-1.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST_NAME, "part-0.bin"]


def test_a_run_that_fails_deletes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.claim("a.json")
        (tmp_path / "a.json").write_text("old")
        folder.complete()
    with pytest.raises(ValueError, match="the name of a file"), opened(tmp_path) as folder:
        folder.claim("../elsewhere")
    assert (tmp_path / "a.json").read_text() == "old"
    assert not (tmp_path / LOCK_NAME).exists()


def test_what_killed_writers_left_is_deleted_in_the_folders_of_listed_files_only(tmp_path: Path) -> None:
    left = f".w.bin.{32 * 'a'}.tmp"
    for folder in ("", "ours", "theirs"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / left).write_text("half")
    with opened(tmp_path, ("ours/w.bin",)) as found:
        found.claim("ours/w.bin")
    assert (tmp_path / "ours" / left).exists()
    with opened(tmp_path, ("ours/w.bin",)):
        assert [path.parent.name for path in tmp_path.rglob(left)] == ["theirs"]


def test_a_name_that_another_process_created_is_refused_at_the_claim(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        (tmp_path / "part-0.bin").write_text("mine")
        with pytest.raises(RequestError, match=r"'part-0\.bin' that no run of Test wrote there"):
            folder.claim("part-0.bin")
        assert folder.remove("part-0.bin") == []
    assert (tmp_path / "part-0.bin").read_text() == "mine"


def test_a_job_without_declared_outputs_needs_an_empty_folder(tmp_path: Path) -> None:
    with opened(tmp_path / "out", None) as folder:
        folder.claim("counts.json")
        (folder.path / "of-the-job").touch()
    with opened(tmp_path / "out", None):
        pass
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RequestError, match=r"expected an empty folder.*'notes\.txt'"), opened(tmp_path, None):
        pass


def test_existing_remote_names_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, remote_names=["b.json"]):
        pass
    with pytest.raises(RequestError, match=r"'part-7\.bin'"), opened(tmp_path, remote_names=["part-7.bin"]):
        pass


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "x"}', "[" * 100_000, '{"kind": 1}', "\xff"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(content, encoding="latin-1")
    with pytest.raises(RequestError, match="is damaged"), opened(tmp_path):
        pass


def test_a_manifest_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Manifest(kind="Test", version=99).save(tmp_path)
    with pytest.raises(RequestError, match="of a newer one; update"), opened(tmp_path):
        pass


def test_an_unwritable_folder_raises_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="expected a folder that can be written"), opened(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("shard-1.tar", True), ("a/shard-1.tar", False), ("shard-1.tar.gz", False), ("x/index", True)],
)
def test_patterns_do_not_match_files_in_subfolders(name: str, is_one: bool) -> None:
    assert matches(name, ["shard-*.tar", "x/index"]) is is_one
