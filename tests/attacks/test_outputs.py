"""Attacks on output folders: files of others, links, sources among the results, and two runs at a time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from lightwell.pipeline.errors import OutputError, RequestError, SourceError
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.jobs.stages import stage_keys
from lightwell.pipeline.outputs.manifest import MANIFEST_NAME
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.index_file import open_index_file
from lightwell.workers.local import run_batch_job
from pictures import make_folder

ENGINE = LocalEngine(num_threads=1)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    photos = make_folder(tmp_path / "photos", num_images=6)
    build_index(photos, fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    policy = [{"Resize": {"height": 16, "width": 16}}]
    return Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )


def run(plan: Plan, out: Path, **keys: Any) -> Any:
    job = Materialize(plan=plan, **{"shard_images": 2, **keys})
    return run_batch_job(job, ENGINE, out, SilentConsole())


def stage_of(plan: Plan, shard_images: int = 2) -> str:
    """Return the folder of the shards' records."""
    keys = stage_keys(Materialize(plan=plan, shard_images=shard_images).stages)
    return f"_lightwell/stages/{keys['shards']}"


def test_an_output_folder_that_holds_the_index_is_refused(plan: Plan, tmp_path: Path) -> None:
    """``--out .`` beside the plan's own index must be refused, and the index stay as it was."""
    before = (tmp_path / "index.parquet").read_bytes()
    with pytest.raises(RequestError, match=r"does not read from.*index\.parquet"):
        run(plan, tmp_path)
    assert (tmp_path / "index.parquet").read_bytes() == before


@pytest.mark.parametrize("through", ["its own name", "a link"])
def test_an_output_folder_around_the_pictures_is_refused(plan: Plan, tmp_path: Path, through: str) -> None:
    """``--out photos`` must not put results among the pictures that an index lists, whatever link leads there."""
    photos = tmp_path / "photos"
    if through == "a link":
        (tmp_path / "link").symlink_to(photos)
        photos = tmp_path / "link"
    before = sorted(tmp_path.rglob("*"))
    for out in (photos, photos / "cat"):
        with pytest.raises(RequestError, match=r"does not read from.*\.jpg' lies.*choose another --out"):
            run(plan, out)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_folder_around_the_masks_is_refused(plan: Plan, tmp_path: Path) -> None:
    """Masks of an index that lie in the output folder must stop the run as pictures do."""
    index = plan.load_index()
    out = tmp_path / "labels"
    out.mkdir()
    masks = [str(out / f"{number}.png") for number in range(len(index))]
    for path in masks:
        Path(path).write_bytes(b"a mask")
    column = index.table.column_names.index("mask")
    table = index.table.set_column(column, "mask", pa.array(masks, index.table.schema.field("mask").type))
    Index(table, index.classes).save(plan.index)
    with pytest.raises(RequestError, match=r"in which '.*labels/0\.png' lies"):
        run(plan, out)


def test_an_index_that_cannot_be_written_is_one_plain_error() -> None:
    """``-o`` in a folder where nothing can be made must be an error of ours."""
    with (
        pytest.raises(OutputError, match="expected a writable path"),
        open_index_file("/proc/x.parquet"),
    ):
        pass


@pytest.mark.parametrize("out", ["", " ", "a\0b"])
def test_no_path_is_no_output_folder(plan: Plan, out: str) -> None:
    """``--out ''``, as an unset variable of a shell gives it, must not mean the current folder."""
    with pytest.raises(RequestError, match="expected a path"):
        run(plan, out)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="expected a folder, a table"):
        build_index(out)


@pytest.mark.parametrize(
    "name",
    [
        "train-000777.tar",
        "index.parquet",
        "_lightwell/counts.json",
        "{stage}/records.parquet",
        "{stage}/parts/part-000000.parquet",
    ],
)
def test_files_of_others_under_our_names_are_neither_replaced_nor_deleted(
    plan: Plan, tmp_path: Path, name: str
) -> None:
    """A stranger's file with one of our names must stop the run before it reads anything."""
    path = tmp_path / "out" / name.format(stage=stage_of(plan))
    path.parent.mkdir(parents=True)
    path.write_text("a thesis")
    with pytest.raises(RequestError, match="no run of Materialize wrote there"):
        run(plan, tmp_path / "out")
    assert path.read_text() == "a thesis"


def test_other_files_stay_through_runs_of_different_plans(plan: Plan, tmp_path: Path) -> None:
    """Notes beside the results and among the parts must outlast every run; shards of an earlier result do not."""
    notes = [
        tmp_path / "out" / name
        for name in ("notes.txt", "_lightwell/stages/thesis.txt", "shards/train-000009.tar")
    ]
    for path in notes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert run(plan, tmp_path / "out")["shards"] == 3
    assert run(plan, tmp_path / "out", shard_images=4)["shards"] == 2
    assert sorted(path.name for path in (tmp_path / "out").glob("train-*")) == [
        "train-000000.tar",
        "train-000001.tar",
    ]
    assert [path.read_text() for path in notes] == ["mine"] * 3


def test_a_file_that_takes_the_place_of_an_old_result_is_not_deleted(plan: Plan, tmp_path: Path) -> None:
    """A file of another size under the name of a result that the next run does not have must stay."""
    run(plan, tmp_path / "out")
    (tmp_path / "out" / "train-000002.tar").write_text("mine")
    run(plan, tmp_path / "out", shard_images=4)
    assert (tmp_path / "out" / "train-000002.tar").read_text() == "mine"


def test_shards_that_are_read_are_not_written_over(plan: Plan, tmp_path: Path) -> None:
    """A plan that reads shards from the folder that it writes to, by way of a link, must be refused."""
    run(plan, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("train-*")}
    (tmp_path / "link").symlink_to(tmp_path / "out")
    build_index(tmp_path / "link").save(tmp_path / "second.parquet")
    second = plan.model_copy(update={"index": tmp_path / "second.parquet"})
    with pytest.raises(RequestError, match="does not read from"):
        run(second, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("train-*")} == before


@pytest.mark.parametrize(
    "name", ["_lightwell/stages", "{stage}", "{stage}/parts", "train-000000.tar", "_lightwell/counts.json"]
)
def test_links_are_not_followed(plan: Plan, tmp_path: Path, name: str) -> None:
    """A link in the place of a result must not lead a write or a deletion out of the folder."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "part-000000.parquet").write_text("mine")
    link = tmp_path / "out" / name.format(stage=stage_of(plan))
    link.parent.mkdir(parents=True)
    link.symlink_to(target if "." not in link.name else target / "part-000000.parquet")
    with pytest.raises(RequestError, match="--out: expected a folder"):
        run(plan, tmp_path / "out")
    assert [path.name for path in target.iterdir()] == ["part-000000.parquet"]
    assert (target / "part-000000.parquet").read_text() == "mine"


def test_an_output_folder_may_be_a_link(plan: Plan, tmp_path: Path) -> None:
    """A link to a folder as ``--out`` is fine, and stays a link."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    run(plan, tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "index.parquet").is_file()


@pytest.mark.parametrize("name", ["../photos/cat/000.jpg", "/etc/passwd", ".lightwell.json", "a/../../x", ""])
def test_a_manifest_that_leads_out_of_its_folder_is_refused(plan: Plan, tmp_path: Path, name: str) -> None:
    """A stranger's manifest that lists files outside of the folder must be refused, and delete nothing."""
    out = tmp_path / "out"
    out.mkdir()
    content = {"format": "lightwell output", "version": 1, "kind": "Materialize", "files": {name: None}}
    (out / MANIFEST_NAME).write_text(json.dumps(content))
    with pytest.raises(RequestError, match="is damaged"):
        run(plan, out)


def test_results_of_another_job_are_not_written_over(plan: Plan, tmp_path: Path) -> None:
    """A folder of another kind of job must be refused."""
    out = tmp_path / "out"
    run(plan, out)
    told = json.loads((out / MANIFEST_NAME).read_text())
    (out / MANIFEST_NAME).write_text(json.dumps({**told, "kind": "Classify"}))
    with pytest.raises(RequestError, match="with results of 'Classify'"):
        run(plan, out)


HOLD = """
import sys
from pathlib import Path
from lightwell.pipeline.outputs.folder import OutputFolder

with OutputFolder.open(Path(sys.argv[1]), kind="Materialize", outputs=["index.parquet", "shard-*.tar"]) as folder:
    folder.claim("shard-000000.tar")
    (folder.path / "shard-000000.tar").write_text("half")
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_while_the_first_lives_and_not_after_its_kill(
    plan: Plan, tmp_path: Path
) -> None:
    """Two processes must not write into one folder; a killed one leaves a folder that can be used, and files of others."""
    out = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with pytest.raises(RequestError, match=f"process {first.pid} on .* is writing to"):
            run(plan, out)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
    (out / "notes.txt").write_text("mine")
    assert run(plan, out)["written"] == 6
    assert (out / "notes.txt").read_text() == "mine"
    assert not list(out.glob(".lightwell.lock"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "part"])
def test_a_shard_that_was_damaged_meanwhile_is_made_again(plan: Plan, tmp_path: Path, damage: str) -> None:
    """A run that goes on must not trust finished shards that were cut, flipped or deleted since."""

    class Stop(SilentConsole):
        def track(self, batches: Any, label: str) -> Any:
            for number, batch in enumerate(batches):
                if number == 2:
                    raise KeyboardInterrupt
                yield batch

    out, job = tmp_path / "out", Materialize(plan=plan, shard_images=2)
    whole = run(plan, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_batch_job(job, ENGINE, out, Stop())
    stage = stage_of(plan, shard_images=2)
    path = out / (f"{stage}/parts/part-000001.parquet" if damage == "part" else "train-000001.tar")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data[:-512] if damage == "cut" else data)
    if damage == "gone":
        path.unlink()
    assert run(plan, out) == whole
    for shard in (tmp_path / "whole").glob("train-*"):
        assert (out / shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("name", ["photo.jpg", "thesis.parquet", "folder"])
def test_an_index_is_written_over_nothing_but_an_index(tmp_path: Path, name: str) -> None:
    """``index -o`` on a file that is no index must be refused, and the file stay."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "photo.jpg":
        path.write_bytes(b"a photo")
    else:
        pq.write_table(pa.table({"thesis": [1]}), path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(RequestError, match="expected a new file, or an index"), open_index_file(path):
        pass
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_two_indexings_into_one_file_are_refused(tmp_path: Path) -> None:
    """A second run with the same ``-o`` must be refused while the first lives."""
    target = tmp_path / "index.parquet"
    with (
        open_index_file(target),
        pytest.raises(RequestError, match="where no other run writes"),
        open_index_file(target),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
