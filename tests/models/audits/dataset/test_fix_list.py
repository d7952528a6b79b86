"""Fix lists: what is written is read again, what is unknown is refused, and only the index changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import lightwell
from lightwell.models.audits.dataset.checks.fixes import FixRow
from lightwell.models.audits.dataset.fix_list import apply_fixes, read_fixes, write_fixes
from lightwell.pipeline.errors import RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from pictures import make_folder


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    root = tmp_path_factory.mktemp("fixes")
    return build_index(
        make_folder(root / "photos", num_images=8), fractions={"train": 0.5, "test": 0.5}, seed=1
    )


@pytest.mark.parametrize("key", ["=1+1.jpg", "+a", "-b", "@c", "'quoted", "'=x", '猫,"x"\n.jpg', "plain.jpg"])
def test_cells_are_no_formulas_and_read_as_they_were(tmp_path: Path, key: str) -> None:
    rows = (FixRow(key, "drop", "", "=cmd()", "id"),)
    write_fixes(rows, tmp_path / "fixes.csv")
    text = (tmp_path / "fixes.csv").read_text(encoding="utf-8")
    assert not any(
        cell.startswith(("=", "+", "-", "@")) for line in text.splitlines() for cell in line.split(",")
    )
    assert read_fixes(tmp_path / "fixes.csv") == rows


def test_images_are_dropped_relabelled_and_moved_and_no_other_row_changes(index: Index) -> None:
    keys, splits = index.table["key"].to_pylist(), index.table["split"].to_pylist()
    target = next(name for name in ("train", "test") if name != splits[2])
    fixes = [
        FixRow(keys[0], "drop", "", "", ""),
        FixRow(keys[1], "relabel", "dog", "", ""),
        FixRow(keys[2], "move", target, "", ""),
    ]
    fixed = apply_fixes(index, fixes)
    before, after = (each.table.to_pylist() for each in (index, fixed))
    before[1]["label"], before[2]["split"] = index.classes.index("dog"), target
    assert after == before[1:]
    assert fixed.fingerprint() != index.fingerprint()


@pytest.mark.parametrize(
    ("fixes", "message"),
    [
        ([("nowhere.jpg", "drop", "")], "expected a key of the index"),
        ([(0, "relabel", "bird")], "expected a class of the index"),
        ([(0, "move", "holdout")], "expected a split of the index"),
        ([(0, "drop", ""), (0, "move", "train")], "got two that differ"),
    ],
)
def test_unknown_keys_classes_and_splits_are_refused(
    index: Index, fixes: list[tuple[str | int, str, str]], message: str
) -> None:
    keys = index.table["key"].to_pylist()
    rows = [
        FixRow(keys[key] if isinstance(key, int) else key, action, value, "", "")  # type: ignore[arg-type]
        for key, action, value in fixes
    ]
    with pytest.raises(RequestError, match=message):
        apply_fixes(index, rows)


@pytest.mark.parametrize("text", ["key,action\na.jpg,delete\n", "name\nx\n", "key,action\n,drop\n", "\xff"])
def test_a_damaged_fix_list_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fixes.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match="expected"):
        read_fixes(tmp_path / "fixes.csv")


def test_the_command_writes_a_new_index_and_leaves_the_old_one(index: Index, tmp_path: Path) -> None:
    index.save(tmp_path / "index.parquet")
    before = (tmp_path / "index.parquet").read_bytes()
    write_fixes([FixRow(index.table["key"][0].as_py(), "drop", "", "", "")], tmp_path / "fixes.csv")
    command = ("index", "index.parquet", "--apply", "fixes.csv", "-o")
    done = lightwell(*command, "fixed.parquet", "--quiet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(Index.load(tmp_path / "fixed.parquet")) == len(index) - 1
    assert lightwell(*command, "index.parquet", "--quiet", cwd=tmp_path).returncode == 2
    assert (tmp_path / "index.parquet").read_bytes() == before
