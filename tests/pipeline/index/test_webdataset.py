"""Tar shards: indexed once, then read by ranges; of a damaged one the rest is kept."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import albumentations as A
import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.sources.tar_samples import split_member_path
from lightwell.pipeline.index.sources.webdataset import expand_braces
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.storage.range_file import RangeFile
from pictures import encoded, make_folder, samples, write_tar
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Three shards of four samples."""
    for number in range(3):
        write_tar(tmp_path / "set" / f"part-{number:03}.tar", samples(4 * number, 4))
    return tmp_path / "set"


def rows(index: Any) -> list[dict[str, Any]]:
    return index.table.to_pylist()


def test_samples_equal_those_of_webdataset(shards: Path) -> None:
    theirs = []
    for path in sorted(shards.glob("*.tar")):
        with path.open("rb") as file:
            members = tar_file_expander([{"url": str(path), "stream": file}])
            theirs += list(group_by_keys(members))
    ours = rows(build_index(shards))
    assert [row["key"].split("/", 1)[1] for row in ours] == [sample["__key__"] for sample in theirs]
    assert [row["label"] for row in ours] == [int(sample["cls"]) for sample in theirs]
    for row, sample in zip(ours, theirs, strict=True):
        with Path(row["uri"]).open("rb") as file:
            file.seek(row["offset"])
            assert file.read(row["bytes"]) == sample["jpg"]


def test_the_batches_of_shards_are_those_of_the_same_files_in_folders(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "photos", num_images=10)
    members: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*.jpg")):
        members[f"{path.parent.name}/{path.name}"] = path.read_bytes()
        members[f"{path.parent.name}/{path.stem}.cls"] = path.parent.name.encode()
    write_tar(tmp_path / "all.tar", members)
    build_index(folder, fractions={"train": 1.0}).save(tmp_path / "folder.parquet")
    build_index(str(tmp_path / "all.tar"), fractions={"train": 1.0}).save(tmp_path / "shard.parquet")
    made = []
    for name in ("folder", "shard"):
        plan = Plan.model_validate(
            {"index": tmp_path / f"{name}.parquet", "preprocess": [A.Resize(32, 32)], "batch": {"size": 4}}
        )
        with LocalEngine(num_threads=2).feed(plan, View(shuffle=True)) as feed:
            made.append(list(feed))
    for one, other in zip(*made, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_a_shuffled_epoch_mixes_all_shards(shards: Path, tmp_path: Path) -> None:
    build_index(shards, fractions={"train": 1.0}).save(tmp_path / "i.parquet")
    plan = Plan.model_validate(
        {"index": tmp_path / "i.parquet", "preprocess": [A.Resize(8, 8)], "batch": {"size": 4}}
    )
    with LocalEngine().feed(plan, View(shuffle=True, num_epochs=2)) as feed:
        batches = list(feed)
    assert any(len({key.split("/")[0] for key in batch.keys}) > 1 for batch in batches)
    assert len({key for batch in batches[:3] for key in batch.keys}) == 12


@pytest.mark.parametrize("how", ["folder", "glob", "braces", "memory", "memory glob"])
def test_shards_are_found_by_path_glob_and_braces(shards: Path, how: str) -> None:
    memory = fsspec.filesystem("memory")
    for path in shards.glob("*.tar"):
        memory.pipe(f"/shards/{path.name}", path.read_bytes())
    source = {
        "folder": str(shards),
        "glob": f"{shards}/part-*.tar",
        "braces": f"{shards}/part-{{000..002}}.tar",
        "memory": "memory://shards",
        "memory glob": "memory://shards/part-00[012].tar",
    }[how]
    index = build_index(source)
    reference = build_index(shards)
    names = ["key", "bytes", "offset", "width", "label", "split", "status"]
    assert index.table.select(names).to_pylist() == reference.table.select(names).to_pylist()
    assert index.classes == ("0", "1", "2")


def test_labels_may_be_a_field_of_the_json_and_masks_are_found(tmp_path: Path) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.full((120, 160), 2, np.uint8)).save(mask, format="png")
    members = {}
    for i, animal in enumerate(["dog", "cat"]):
        members |= {
            f"{i}.json": json.dumps({"animal": animal}).encode(),
            f"{i}.png": encoded(i, "png"),
            f"{i}.seg.png": mask.getvalue(),
            f"{i}.txt": b"a caption",
        }
    index = build_index(str(write_tar(tmp_path / "a.tar", members)), label_column="animal")
    assert index.classes == ("cat", "dog")
    assert index.table["label"].to_pylist() == [1, 0]
    index.save(tmp_path / "i.parquet")
    plan = Plan.model_validate({"index": tmp_path / "i.parquet"})
    with LocalEngine().feed(plan, View()) as feed:
        (batch,) = feed
    assert batch.masks is not None
    assert batch.masks.unique().tolist() == [2]


def test_refreshing_opens_only_the_shard_that_changed(shards: Path) -> None:
    first = build_index(shards)
    write_tar(shards / "part-001.tar", samples(50, 2))
    second = build_index(shards, previous=first)
    assert (second.summary()["source"]["read"], second.summary()["source"]["reused"]) == (2, 8)
    assert second.table.drop_columns([]).to_pylist() == build_index(shards).table.to_pylist()
    assert build_index(shards, previous=second).summary()["source"]["read"] == 0


@pytest.mark.fault("a tar shard that breaks off")
@pytest.mark.parametrize("at", [0.2, 0.5, 0.7])
def test_samples_before_the_end_of_a_truncated_shard_are_kept(shards: Path, at: float) -> None:
    path = shards / "part-001.tar"
    whole = path.read_bytes()
    complete = rows(build_index(path.as_posix()))
    cut = int(len(whole) * at)
    path.write_bytes(whole[:cut])
    found = [row for row in rows(build_index(shards)) if row["uri"] == str(path)]
    kept = [row for row in found if row["status"] == "ok"]
    expected = [row for row in complete if row["offset"] + row["bytes"] <= cut]
    assert [row["offset"] for row in kept] == [row["offset"] for row in expected]
    assert found[-1]["status"].startswith("broken shard: ")


def test_a_shard_truncated_between_two_members_is_reported(shards: Path) -> None:
    path = shards / "part-001.tar"
    third = rows(build_index(str(path)))[2]["offset"] - 512
    path.write_bytes(path.read_bytes()[:third])
    found = rows(build_index(str(path)))
    assert [row["status"][:12] for row in found] == ["ok", "ok", "broken shard"]


def test_a_damaged_header_between_members_is_reported(shards: Path) -> None:
    path = shards / "part-000.tar"
    data = bytearray(path.read_bytes())
    third = rows(build_index(str(path)))[2]["offset"] - 512
    data[third : third + 512] = os.urandom(512)
    path.write_bytes(data)
    found = rows(build_index(str(path)))
    assert [row["status"] for row in found[:2]] == ["ok", "ok"]
    assert "broken shard: " in found[-1]["status"]


def test_a_compressed_shard_is_reported_with_a_hint(shards: Path, tmp_path: Path) -> None:
    import gzip

    (shards / "part-003.tar").write_bytes(gzip.compress((shards / "part-000.tar").read_bytes()))
    assert "only plain tar can be read at random" in rows(build_index(shards))[-1]["status"]


def test_missing_shards_are_refused_or_listed(shards: Path) -> None:
    with pytest.raises(SourceError, match="none that match"):
        build_index(f"{shards}/nothing-*.tar")
    with pytest.raises(SourceError, match="none that can be opened"):
        build_index(f"{shards}/nothing.tar")
    found = rows(build_index(f"{shards}/part-{{002..003}}.tar"))
    assert [row["status"] for row in found[:4]] == ["ok"] * 4
    assert found[4]["status"] == "cannot be opened: No such file or directory"


def test_splits_come_from_names_and_folders_of_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", samples(0, 1))
    write_tar(tmp_path / "validation" / "0.tar", samples(0, 1))
    assert sorted(build_index(tmp_path).table["split"].to_pylist()) == ["train", "val"]
    write_tar(tmp_path / "zebra.tar", samples(0, 1))
    assert build_index(tmp_path).summary()["source"]["split_from"] == "hash"


def test_a_repeated_key_gives_two_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, {"a.jpg": encoded(0), "b.jpg": encoded(1), "a.cls": b"0"})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("b.png")
        info.size = len(encoded(2, "png"))
        tar.addfile(info, io.BytesIO(encoded(2, "png")))
    assert build_index(str(path)).table["key"].to_pylist() == ["a/a", "a/b", "a/b~2"]


@pytest.mark.fault("a tar shard rewritten since indexing")
def test_a_shard_rewritten_since_it_was_indexed_is_detected(shards: Path, tmp_path: Path) -> None:
    build_index(shards, fractions={"train": 1.0}).save(tmp_path / "i.parquet")
    path = shards / "part-001.tar"
    path.write_bytes(path.read_bytes())
    os.utime(path, ns=(1, 1))
    plan = Plan.model_validate({"index": tmp_path / "i.parquet", "preprocess": [A.Resize(8, 8)]})
    with LocalEngine().feed(plan, View()) as feed:
        list(feed)
        assert feed.counts == {"read": 12, "used": 8, "replaced": 4, "skipped": 0}
        assert all("written at another time" in entry["reason"] for entry in feed.quarantine)


def test_braces_are_expanded_like_in_a_shell() -> None:
    assert expand_braces("a{08..10}{x,y}") == ["a08x", "a08y", "a09x", "a09y", "a10x", "a10y"]
    assert expand_braces("{2..0}") == ["2", "1", "0"]
    assert expand_braces("plain") == ["plain"]


def test_names_are_split_at_the_first_dot() -> None:
    assert split_member_path("./a.b/c.seg.PNG") == ("a.b/c", "seg.png")


@given(
    data=st.binary(max_size=300),
    block=st.integers(1, 64),
    moves=st.lists(st.tuples(st.integers(0, 320), st.integers(0, 90))),
)
def test_a_range_file_reads_like_a_file(data: bytes, block: int, moves: list[tuple[int, int]]) -> None:
    plain, ranged = io.BytesIO(data), RangeFile(lambda o, n: data[o : o + n], len(data), block)
    for place, size in moves:
        plain.seek(place)
        ranged.seek(place)
        assert ranged.read(size) == plain.read(size)
        assert ranged.tell() == plain.tell()
