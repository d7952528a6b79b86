"""Columns of a table without another meaning are kept in the index, as texts that cannot collide with its own columns."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lightwell import build_index
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.groups import group_values
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.sources.table_groups import MAX_COLUMNS
from pictures import make_picture, write_picture

ROWS = ("a.png,cat,leica,007,train", "b.png,dog,,12,train", "c.png,cat,canon,,test")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("groups")
    for number, name in enumerate("abc"):
        write_picture(root / f"{name}.png", make_picture(number, height=16, width=16))
    (root / "t.csv").write_text("\n".join(["path,label,format,site,split", *ROWS]) + "\n")
    return root / "t.csv"


EXPECTED = {"format": ["leica", None, "canon"], "site": ["007", "12", None]}


def test_columns_are_kept_as_they_are_written_beside_those_of_the_index(table: Path) -> None:
    index = build_index(table)
    assert group_values(index.table, ["format", "site"]) == EXPECTED
    assert index.table["format"].to_pylist() == ["png"] * 3
    assert json.loads(index.table["groups"][1].as_py()) == {"site": "12"}


def test_groups_survive_parquet_memory_mapping_and_a_refresh(table: Path, tmp_path: Path) -> None:
    index, path = build_index(table), tmp_path / "index.parquet"
    index.save(path)
    for found in (
        Index.load(path),
        Index.open(path, min_rows=1),
        build_index(table, previous=Index.load(path)),
    ):
        assert group_values(found.table, ["format", "site"]) == EXPECTED
        assert found.fingerprint() == index.fingerprint()


def test_an_index_from_before_groups_is_read_and_has_none(table: Path, tmp_path: Path) -> None:
    index = build_index(table)
    pq.write_table(index.table.drop_columns(["groups"]), tmp_path / "index.parquet")
    loaded = Index.load(tmp_path / "index.parquet")
    assert loaded.table["groups"].null_count == 3
    assert loaded.fingerprint() == index.fingerprint()
    with pytest.raises(
        PlanError, match="an index without other columns; index a table with this column again"
    ):
        group_values(loaded.table, ["site"])


def test_an_unknown_column_is_refused_with_those_that_exist(table: Path) -> None:
    with pytest.raises(
        PlanError, match=r"got 'sight' and an index with \['format', 'site'\]; did you mean 'site'"
    ):
        group_values(build_index(table).table, ["sight"])


def test_long_texts_and_too_many_columns_are_left_out_and_counted(table: Path) -> None:
    names = [f"c{number}" for number in range(MAX_COLUMNS)]
    wide = table.with_name("wide.csv")
    wide.write_text(
        f"path,note,{','.join(names)},last\n" + f"a.png,{'x' * 201},{','.join('1' * MAX_COLUMNS)},1\n"
    )
    index = build_index(wide, label_column=None)
    assert list(json.loads(index.table["groups"][0].as_py())) == names
    left_out = [each for each in index.source["remarks"] if each["what"].startswith("columns of the table")]
    assert [(each["count"], each["examples"]) for each in left_out] == [(2, ["note", "last"])]
