"""Indexing on Ray: the same file as of this process, byte for byte, whatever is killed on the way."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm
from clusters import Cluster
from lightwell.cli.index import open_readers
from lightwell.cli.options import EngineName
from lightwell.pipeline.errors import PlanError, RequestError, RunError
from lightwell.pipeline.index import scan
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.index.scan_checkpoint import ScanCheckpoint
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.index_readers import Probe, RayReaders, check_visible
from pictures import make_folder, samples, write_picture, write_tar

pytestmark = pytest.mark.ray


def make_table(folder: Path) -> Path:
    """A table with masks, boxes, a missing file and a missing mask."""
    make_folder(folder / "photos", num_images=12)
    lines = ["path,label,mask,boxes"]
    for number in range(12):
        if number % 2:
            size = (100 + 4 * (number % 5), 140 + 6 * (number % 7))  # as make_folder draws it
            write_picture(folder / "masks" / f"{number}.png", np.full(size, number, np.uint8))
        name = f"photos/{('cat', 'dog')[number % 2]}/{number:03}.jpg"
        lines.append(f'{name},{number % 2},masks/{number}.png,"1,2,30,40"')
    (folder / "table.csv").write_text("\n".join([*lines, "photos/gone.jpg,1,,"]) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder, a table and shards, each with something that cannot be used."""
    folder = tmp_path_factory.mktemp("sources")
    photos = make_folder(folder / "photos", num_images=40)
    (photos / "cat" / "000.jpg").write_bytes(b"no picture")
    (photos / "dog" / "001.jpg").write_bytes(b"")
    for number in range(6):
        write_tar(folder / "set" / f"train-{number:03}.tar", samples(4 * number, 4))
    broken = folder / "set" / "train-001.tar"
    broken.write_bytes(broken.read_bytes()[:-20_000])
    return {"folder": photos, "table": make_table(folder / "listed"), "shards": folder / "set"}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of two files, so that there are some for each worker."""
    monkeypatch.setattr(scan, "LOCAL_CHUNK_FILES", 2)


def saved(index: Index, path: Path) -> bytes:
    index.save(path)
    return path.read_bytes()


@pytest.mark.usefixtures("cluster", "small")
@pytest.mark.parametrize("num_workers", [1, 2, 4])
@pytest.mark.parametrize("kind", ["folder", "table", "shards"])
def test_the_file_is_the_same_to_the_last_byte(
    sources: dict[str, Path], tmp_path: Path, kind: str, num_workers: int
) -> None:
    readers = RayReaders(num_workers=num_workers)
    hashed = {"hash_content": num_workers == 2}
    here = build_index(sources[kind], **hashed)
    there = build_index(sources[kind], readers=readers, **hashed)
    assert saved(there, tmp_path / "there") == saved(here, tmp_path / "here")
    assert len(set(here.table["status"].to_pylist()) - {"ok"}) > 0
    steps: list[tuple[int, int]] = []
    again = build_index(
        sources[kind], previous=here, readers=readers, progress=lambda *step: steps.append(step), **hashed
    )
    assert saved(again, tmp_path / "again") == saved(
        build_index(sources[kind], previous=here, **hashed), tmp_path / "expected"
    )
    assert again.summary()["source"]["reused"] > len(here) // 3
    assert steps[-1][0] == steps[-1][1] > 1


@pytest.mark.usefixtures("cluster", "small")
def test_each_takes_up_what_the_other_left(sources: dict[str, Path], tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 10:
            raise KeyboardInterrupt

    expected = saved(build_index(sources["folder"]), tmp_path / "whole")
    output = tmp_path / "index.parquet"
    order = [RayReaders(num_workers=2), None, RayReaders(num_workers=2)]
    for number, readers in enumerate(order):
        said: list[str] = []
        checkpoint = ScanCheckpoint(output, report=said.append)
        if number < 2:
            with pytest.raises(KeyboardInterrupt):
                build_index(sources["folder"], readers=readers, checkpoint=checkpoint, progress=stop)
        else:
            index = build_index(sources["folder"], readers=readers, checkpoint=checkpoint)
            assert saved(index, output) == expected
        assert bool(said) == bool(number)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("readers", "told"),
    [
        (
            RayReaders(per_worker=Resources(64)),
            "expected 64 CPUs per worker, got a cluster whose largest node has 2",
        ),
        (RayReaders(num_workers=99), "expected room for 99 workers of 1 CPUs"),
    ],
)
def test_workers_that_never_fit_are_refused_at_once(
    sources: dict[str, Path], readers: RayReaders, told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        build_index(sources["folder"], readers=readers)


def test_who_sees_another_file_or_none_is_told_apart(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.write_bytes(b"four")
    check_visible([])
    check_visible([Probe(str(gone), 4), Probe(str(here), 4)])
    with pytest.raises(RunError, match=r"gone' \(4 bytes\), as the driver can, got no such file; put it in"):
        check_visible([Probe(str(gone), 4)])
    with pytest.raises(RunError, match="got another one, of 4 bytes"):
        check_visible([Probe(str(here), 5)])


@pytest.mark.parametrize("option", [{"workers": 2}, {"address": "auto"}, {"cpus_per_worker": 2}])
def test_options_of_workers_are_refused_without_ray(option: dict[str, Any]) -> None:
    options = {"address": None, "workers": 0, "cpus_per_worker": None, **option}
    with pytest.raises(RequestError, match="--engine: expected ray with"):
        open_readers(EngineName.local, **options)


def test_the_command_line_writes_the_same_file(
    two_nodes: Cluster, sources: dict[str, Path], tmp_path: Path
) -> None:
    words = ["--engine", "ray", "--address", two_nodes.address, "--workers", "2", "--cpus-per-worker", "0.5"]
    done = index_command(sources["folder"], tmp_path / "index.parquet", *words)
    assert done.returncode == 0, done.stderr
    assert "headers: 40 of 40" in done.stderr
    expected = saved(build_index(sources["folder"]), tmp_path / "whole")
    assert (tmp_path / "index.parquet").read_bytes() == expected
    assert list(tmp_path.glob(".*")) == []


def index_command(source: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return warm.run(warm.COMMAND, "index", source, "-o", output, *words)
