"""What every source has to show: the same pictures in each form give the same rows, whoever reads them and however often."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from annotation_formats import SCENES, WRITERS
from lightwell import Index, LocalEngine, Plan, SourceError, View, build_index
from lightwell.pipeline.index import sources
from scenes import Scene, stored

Write = Callable[[Path, tuple[Scene, ...]], Path]
BAD = "a.png"


def write_folder(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    for number, scene in enumerate(scenes):
        scene.save(folder / "photos" / ("cat", "dog")[number % 2])
    return folder / "photos"


def write_csv(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    for scene in scenes:
        scene.save(folder)
    rows = "".join(f"{scene.name},{('cat', 'dog')[number % 2]}\n" for number, scene in enumerate(scenes))
    (folder / "table.csv").write_text(f"path,label\n{rows}")
    return folder / "table.csv"


def write_parquet(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    table = pyarrow.csv.read_csv(write_csv(folder, scenes))
    pyarrow.parquet.write_table(table, folder / "table.parquet")
    return folder / "table.parquet"


def write_shards(folder: Path, scenes: tuple[Scene, ...]) -> Path:
    """Write what ``packed`` puts into a shard."""
    for scene in scenes:
        scene.save(folder)
    return folder / "shard-000.tar"


FORMS: dict[str, Write] = {
    "folder": write_folder,
    "csv": write_csv,
    "parquet": write_parquet,
    "shards": write_shards,
    **WRITERS,
}
"""Every form in which a source may hold the scenes."""


def packed(source: Path) -> Path:
    """Put the files beside a shard into it, once they are as a test wants them."""
    if source.suffix == ".tar":
        with tarfile.open(source, "w") as tar:
            for path in sorted(source.parent.glob("*.*g")):
                tar.add(path, path.name)
    return source


def rows_of(index: Index) -> dict[str, dict[str, Any]]:
    return {Path(row["key"]).name: row for row in index.table.to_pylist()}


def names(rows: dict[str, Any]) -> set[str]:
    """Names without suffix, which the key of a sample in a shard does not have."""
    return {name.partition(".")[0] for name in rows}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Write:
    """Each form of a source."""
    return FORMS[request.param]


def test_every_picture_has_a_row_with_its_stored_size_and_orientation(form: Write, tmp_path: Path) -> None:
    rows = rows_of(build_index(packed(form(tmp_path, SCENES))))
    assert {row["status"] for row in rows.values()} == {"ok"}
    found = {
        name.partition(".")[0]: (row["height"], row["width"], row["orientation"])
        for name, row in rows.items()
    }
    expected = {
        scene: (*stored(scene.pixels(), scene.orientation).shape[:2], scene.orientation) for scene in SCENES
    }
    assert found == {Path(scene.name).stem: facts for scene, facts in expected.items()}


def test_its_pictures_come_out_of_a_feed(form: Write, tmp_path: Path) -> None:
    build_index(packed(form(tmp_path, SCENES))).save(tmp_path / "index.parquet")
    plan = Plan(index=tmp_path / "index.parquet", batch={"size": 1})
    with LocalEngine(num_threads=2).feed(plan, View()) as feed:
        found = {Path(batch.keys[0]).stem: batch.images[0].numpy() for batch in feed}
    for scene in SCENES:
        difference = found[Path(scene.name).stem].astype(int) - scene.pixels()
        assert np.abs(difference).mean() < 3


def damage(folder: Path) -> None:
    (picture,) = folder.rglob(BAD)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))


def test_one_damaged_file_costs_one_row(form: Write, tmp_path: Path) -> None:
    source = form(tmp_path, SCENES)
    damage(tmp_path)
    rows = rows_of(build_index(packed(source)))
    assert names(rows) == names({scene.name: 0 for scene in SCENES})
    assert names({name: row for name, row in rows.items() if row["status"] != "ok"}) == names({BAD: 0})


def test_an_index_is_refreshed_without_opening_what_is_known(form: Write, tmp_path: Path) -> None:
    source = form(tmp_path, SCENES)
    damage(tmp_path)
    packed(source)
    first = build_index(source)
    second = build_index(source, previous=first)
    assert second.table.equals(first.table)
    assert second.fingerprint() == first.fingerprint()
    assert second.summary()["source"]["read"] == 0


def test_only_a_changed_file_is_opened_again(form: Write, tmp_path: Path) -> None:
    source = packed(form(tmp_path, SCENES))
    first = build_index(source)
    (picture,) = tmp_path.rglob(BAD)
    Scene(BAD, 60, 40).save(picture.parent)
    second = build_index(packed(source), previous=first)
    assert second.fingerprint() != first.fingerprint()
    in_shards = source.suffix == ".tar"  # a shard is read as a whole
    assert second.summary()["source"]["read"] == (len(SCENES) if in_shards else 1)


def test_the_index_does_not_depend_on_the_number_of_threads(form: Write, tmp_path: Path) -> None:
    source = packed(form(tmp_path, SCENES))
    assert build_index(source, num_threads=1) == build_index(source, num_threads=7)


def test_a_saved_index_is_the_same_when_it_is_loaded(form: Write, tmp_path: Path) -> None:
    index = build_index(packed(form(tmp_path, SCENES)))
    index.save(tmp_path / "index.parquet")
    assert Index.load(tmp_path / "index.parquet") == index


def test_a_source_that_is_not_there_is_refused(form: Write, tmp_path: Path) -> None:
    source = form(tmp_path, SCENES)
    with pytest.raises(SourceError, match=r"expected .*, got .*; "):
        build_index(source.with_name(f"nowhere{source.suffix}"))


def listing_functions() -> set[str]:
    """Names of all functions of sources that list a source."""
    found = set()
    for module in pkgutil.iter_modules(sources.__path__):
        content = vars(importlib.import_module(f"{sources.__name__}.{module.name}"))
        found |= {
            name
            for name, value in content.items()
            if inspect.isfunction(value)
            and name.startswith("list_")
            and inspect.signature(value).return_annotation == "Listing"
        }
    return found


def test_every_source_is_in_the_battery(tmp_path: Path) -> None:
    called = set()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        called.add(frame.f_code.co_name)

    for name, write in FORMS.items():
        (tmp_path / name).mkdir()
        source = packed(write(tmp_path / name, SCENES))
        sys.setprofile(note)
        try:
            build_index(source)
        finally:
            sys.setprofile(None)
    assert listing_functions() - called == set()
