"""A snapshot that differs fails and shows the difference; it is written only on request."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshot import FOLDER, Snapshots


def test_a_changed_text_fails_with_the_changed_lines(tmp_path: Path) -> None:
    Snapshots(update=True, folder=tmp_path).check("a/b", "first\nsecond\n")
    kept = Snapshots(update=False, folder=tmp_path)
    kept.check("a/b", "first\nsecond\n")
    with pytest.raises(AssertionError, match=r"--update-snapshots[^$]*-second\n\+third"):
        kept.check("a/b", "first\nthird\n")
    assert (tmp_path / "a" / "b.txt").read_text() == "first\nsecond\n"


def test_a_text_that_was_never_stored_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"\+new"):
        Snapshots(update=False, folder=tmp_path).check("a", "new\n")


def test_what_is_equal_enough_is_not_written_again(tmp_path: Path) -> None:
    for text in ("1.0", "1.1"):
        Snapshots(update=True, folder=tmp_path).check(
            "a", text, same=lambda a, b: abs(float(a) - float(b)) < 1
        )
    assert (tmp_path / "a.txt").read_text() == "1.0"


def test_a_snapshot_without_a_test_fails_and_is_deleted_by_an_update(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Snapshots(update=True, folder=tmp_path).check(f"a/{name}", name)
    with pytest.raises(AssertionError):
        Snapshots(update=False, folder=tmp_path).check_names("a", {"one"})
    Snapshots(update=True, folder=tmp_path).check_names("a", {"one"})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one.txt"]


def test_every_folder_of_snapshots_is_named_by_a_test(root: Path) -> None:
    sources = "\n".join(path.read_text() for path in (root / "tests").rglob("test_*.py"))
    assert [folder.name for folder in FOLDER.iterdir() if f'"{folder.name}' not in sources] == []
