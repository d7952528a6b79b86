"""Where results are kept: a folder, or a bucket by way of a folder of this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import BUCKET, s3_server
from lightwell.models.training.job import Classify
from lightwell.models.training.optim import CheckpointEvery
from lightwell.models.zoo.build import ModelSpec
from lightwell.pipeline.errors import OutputError, PlanError, RequestError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.outputs.folder import OutputFolder
from lightwell.pipeline.outputs.manifest import MANIFEST_NAME
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.output_store import UPLOADED_LAST, absolute_out, open_output_store
from lightwell.workers.train.local_trainer import LocalTrainer
from pictures import make_folder

OUT = f"s3://{BUCKET}/run"


class Stop(SilentConsole):
    """Ends a run, as Ctrl-C does, behind some training batches."""

    def track(self, batches: Any, label: str) -> Iterator[Any]:
        for number, batch in enumerate(batches):
            if (label, number) == ("train", 3):
                raise KeyboardInterrupt
            yield batch


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with s3_server(monkeypatch) as client:
        yield client


@pytest.fixture
def job(tmp_path: Path) -> Classify:
    build_index(make_folder(tmp_path / "photos")).save(tmp_path / "index.parquet")
    policy = [{"Resize": {"height": 32, "width": 32}}]
    plan = Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": policy, "batch": {"size": 4}}
    )
    every = CheckpointEvery(steps=1)
    model = ModelSpec(name="timm:test_resnet", weights="none")
    return Classify(plan=plan, model=model, epochs=2, checkpoint_every=every)


def names(client: Any, folder: str) -> list[str]:
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{folder}/").get("Contents", ())
    return [each["Key"].removeprefix(f"{folder}/") for each in listed]


def test_a_run_in_a_bucket_goes_on_where_it_stood_and_leaves_nothing_else(
    job: Classify, client: Any, tmp_path: Path
) -> None:
    trainer = LocalTrainer(LocalEngine(num_threads=1))
    with pytest.raises(KeyboardInterrupt):
        trainer.run(job, OUT, Stop())
    with open_output_store(OUT, writes=False) as store:
        assert job.resume_point(store.folder).position["step"] == 3
    result = trainer.run(job, OUT, SilentConsole())
    whole = trainer.run(job, str(tmp_path / "whole"), SilentConsole())
    assert result["checkpoint"] == f"{OUT}/best.safetensors"
    assert result["test"]["loss"] == whole["test"]["loss"]
    kept = (
        MANIFEST_NAME,
        "best.safetensors",
        UPLOADED_LAST,
        "confusion.png",
        "counts.json",
        "curves.png",
        "metrics.jsonl",
        "quarantine.jsonl",
        "reliability.png",
        "result.json",
        "run.json",
    )
    assert names(client, "run") == list(kept)
    counts = client.get_object(Bucket=BUCKET, Key="run/counts.json")["Body"].read()
    assert json.loads(counts) == json.loads((tmp_path / "whole" / "counts.json").read_text())


def test_only_what_changed_is_copied_and_the_checkpoint_last(client: Any) -> None:
    few = f"s3://{BUCKET}/few"
    with open_output_store(few) as store:
        for name in (UPLOADED_LAST, "a.json", "z.json"):
            (store.folder / name).write_text("1")
        store.publish()
        stamps = [
            client.head_object(Bucket=BUCKET, Key=f"few/{n}")["ETag"] for n in ("a.json", UPLOADED_LAST)
        ]
        client.delete_object(Bucket=BUCKET, Key="few/a.json")
        (store.folder / UPLOADED_LAST).write_text("22")
        store.publish()
        assert names(client, "few") == [UPLOADED_LAST, "z.json"]
        assert client.head_object(Bucket=BUCKET, Key=f"few/{UPLOADED_LAST}")["ETag"] != stamps[1]
    with open_output_store(few, writes=False) as store:
        assert (store.folder / UPLOADED_LAST).read_text() == "22"
        (store.folder / "of-another-rank").touch()
        store.publish()
    assert "of-another-rank" not in names(client, "few")


def test_what_cannot_be_written_to_is_said(client: Any) -> None:
    with (
        pytest.raises(PlanError, match="expected a path or a URI that fsspec supports, got 'cloud://x'"),
        open_output_store("cloud://x"),
    ):
        pass
    with open_output_store(OUT) as store:
        for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=found["Key"])
        client.delete_bucket(Bucket=BUCKET)
        (store.folder / "a").touch()
        with pytest.raises(OutputError, match=f"{OUT} cannot be written"):
            store.publish()


def test_the_address_of_results_means_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_out("runs/a") == f"{tmp_path}/runs/a"
    assert absolute_out("s3://bucket/run/") == "s3://bucket/run"


def test_subfolders_travel_and_only_what_was_copied_is_deleted(client: Any) -> None:
    nested = f"s3://{BUCKET}/nested"
    client.put_object(Bucket=BUCKET, Key="nested/notes.txt", Body=b"mine")
    with open_output_store(nested, outputs=["a/b.json", "c.json"], lock=True) as store:
        assert store.remote_names == {"notes.txt"}
        with OutputFolder.open(store.folder, kind="Test", outputs=["a/b.json", "c.json"]) as folder:
            folder.claim("a/b.json", "c.json")
            (store.folder / "a").mkdir()
            (store.folder / "a" / "b.json").write_text("1")
            (store.folder / "c.json").write_text("2")
            store.publish()
            folder.remove("c.json")
            store.publish()
    assert names(client, "nested") == [MANIFEST_NAME, "a/b.json", "notes.txt"]
    with open_output_store(nested, outputs=["a/b.json", "c.json"], writes=False) as store:
        assert (store.folder / "a" / "b.json").read_text() == "1"


def test_a_second_run_below_a_uri_is_refused_while_the_first_lives(client: Any) -> None:
    with (
        open_output_store(OUT, lock=True),
        pytest.raises(RequestError, match="expected a place where no other run writes"),
        open_output_store(OUT, lock=True),
    ):
        pass
    with open_output_store(OUT, lock=True):
        pass
    assert names(client, "run") == []
