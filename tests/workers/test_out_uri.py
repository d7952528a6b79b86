"""Commands whose ``--out`` is a URI: results lie in the bucket, whole, and nowhere else; interrupted runs go on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, s3_server
from lightwell.cli import app as cli
from lightwell.pipeline.errors import PlanError, RequestError
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.outputs.manifest import MANIFEST_NAME
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from lightwell.workers.output_store import local_folder
from pictures import make_folder
from typer.testing import CliRunner

OUT = f"s3://{BUCKET}/a/shards"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server(monkeypatch) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    photos = make_folder(tmp_path / "photos", num_images=6)
    build_index(photos, fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    plan = {"index": "index.parquet", "preprocess": [{"Resize": {"height": 16, "width": 16}}]}
    Plan.model_validate({**plan, "batch": {"size": 2}}).save(tmp_path / "plan.yaml")
    return tmp_path


def lightwell(*words: str) -> str:
    return CliRunner().invoke(cli.app, words, catch_exceptions=False).output


def objects(client: Any, prefix: str) -> dict[str, bytes]:
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", ())
    return {
        each["Key"].removeprefix(f"{prefix}/"): client.get_object(Bucket=BUCKET, Key=each["Key"])[
            "Body"
        ].read()
        for each in listed
    }


class Stop(SilentConsole):
    """Ends a run, as Ctrl-C does, behind some batches."""

    def track(self, batches: Any, label: str) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            if number == 2:
                raise KeyboardInterrupt
            yield batch


def test_an_index_is_written_to_a_uri_and_brought_up_to_date_there(folder: Path, client: Any) -> None:
    uri = f"s3://{BUCKET}/sets/index.parquet"
    assert f"wrote {uri}: 6 samples" in lightwell("index", "photos", "-o", uri)
    (folder / "photos" / "cat" / "000.jpg").unlink()
    assert f"wrote {uri}: 5 samples" in lightwell("index", "photos", "-o", uri)
    client.download_file(BUCKET, "sets/index.parquet", str(folder / "copy.parquet"))
    assert len(Index.load(folder / "copy.parquet")) == 5
    assert list(objects(client, "sets")) == ["index.parquet"]
    assert not (folder / "s3:").exists()


def test_materialize_writes_to_a_uri_what_it_writes_to_a_folder(folder: Path, client: Any) -> None:
    lightwell("materialize", "plan.yaml", "--out", OUT, "--shard-images", "2", "-q")
    lightwell("materialize", "plan.yaml", "--out", "here", "--shard-images", "2", "-q")
    there = objects(client, "a/shards")
    here = folder / "here"
    assert there.keys() == {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
    assert [
        n for n, data in there.items() if n.endswith(".tar") and data != (folder / "here" / n).read_bytes()
    ] == []
    assert not (folder / "s3:").exists()


def test_an_interrupted_run_goes_on_from_the_uri_and_files_of_others_stay(folder: Path, client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="c/shards/notes.txt", Body=b"mine")
    out = f"s3://{BUCKET}/c/shards"
    job = Materialize(plan=Plan.load(folder / "plan.yaml"), shard_images=2)
    with pytest.raises(KeyboardInterrupt):
        run_batch_job(job, LocalEngine(num_threads=1), out, Stop())
    begun = objects(client, "c/shards")
    assert {"train-000000.tar", MANIFEST_NAME} <= begun.keys()
    assert [name for name in begun if name.endswith("/parts/part-000000.parquet")]
    assert run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())["written"] == 6
    done = objects(client, "c/shards")
    assert not [name for name in done if "/parts/" in name]
    assert done["train-000000.tar"] == begun["train-000000.tar"]
    assert done["notes.txt"] == b"mine"


def test_objects_of_others_under_our_names_are_refused(folder: Path, client: Any) -> None:
    client.put_object(Bucket=BUCKET, Key="b/shards/train-000777.tar", Body=b"mine")
    job = Materialize(plan=Plan.load(folder / "plan.yaml"))
    with pytest.raises(RequestError, match=r"'train-000777\.tar' that no run of Materialize wrote there"):
        run_batch_job(job, LocalEngine(num_threads=1), f"s3://{BUCKET}/b/shards", SilentConsole())
    assert objects(client, "b/shards") == {"train-000777.tar": b"mine"}


@pytest.mark.parametrize("command", ["index", "materialize", "audit", "train"])
def test_an_unknown_protocol_is_refused_at_once(folder: Path, command: str) -> None:
    (folder / "audit.yaml").write_text(
        "plan: plan.yaml\nmodel: {name: resnet18, weights: none}\nsplit: null\n"
    )
    (folder / "train.yaml").write_text("plan: plan.yaml\nmodel: {name: resnet18, weights: none}\n")
    source = {"index": "photos", "materialize": "plan.yaml"}.get(command, f"{command}.yaml")
    option = "-o" if command == "index" else "--out"
    with pytest.raises(PlanError, match="expected a path or a URI that fsspec supports, got 'cloud://"):
        lightwell(command, source, option, "cloud://x/y", "-q")
    assert not (folder / "cloud:").exists()


def test_commands_that_need_a_folder_refuse_a_uri() -> None:
    with pytest.raises(RequestError, match="expected a local folder, got 's3://bucket/demo'"):
        local_folder("s3://bucket/demo")


def test_a_plan_refuses_an_index_at_a_uri(folder: Path) -> None:
    (folder / "far.yaml").write_text("index: s3://bucket/index.parquet\n")
    with pytest.raises(PlanError, match="index: expected a local path, got 's3://bucket/index"):
        Plan.load(folder / "far.yaml")
