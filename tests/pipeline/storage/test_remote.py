"""Remote sources: range reads, retries of transient faults, and errors for unavailable sources."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import fsspec
import numpy as np
import pytest
import torch
from buckets import BUCKET, Faulty, faulty_server, s3_server, upload, use_endpoint
from lightwell.pipeline.errors import SourceError, SourceUnavailableError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.storage import remote
from lightwell.pipeline.storage.remote import RemoteStore
from patience import HANG_S
from pictures import make_folder, make_picture, write_picture

RESIZE = {"preprocess": [A.Resize(32, 32)], "batch": {"size": 8}}
TOLD = ["key", "bytes", "width", "height", "mode", "format", "orientation", "label", "split", "status"]


def read(index: Path, **errors: Any) -> tuple[list[Any], list[Any], dict[str, int]]:
    plan = Plan.model_validate({"index": index, "errors": errors, **RESIZE})
    with LocalEngine(num_threads=2).feed(plan, View()) as feed:
        batches = list(feed)
    return batches, feed.quarantine, feed.counts


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in class folders below a split."""
    folder = tmp_path_factory.mktemp("data")
    for split in ("train", "val"):
        make_folder(folder / split, num_images=6)
    return folder


@pytest.fixture
def bucket(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The images in an S3-compatible bucket."""
    with s3_server(monkeypatch) as client:
        upload(client, photos, "set/")
        yield client


@pytest.fixture
def served(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """The images on a server with injected faults, and an index of them in ``tmp_path``."""
    monkeypatch.setattr(remote, "ATTEMPT_TIMEOUT_S", 1.5)
    files = {f"/{BUCKET}/{p.relative_to(photos)}": p.read_bytes() for p in sorted(photos.rglob("*.jpg"))}
    with faulty_server(files) as faulty:
        use_endpoint(monkeypatch, faulty.url)
        table = "path,label\n" + "".join(f"s3:/{name},x\n" for name in files)
        (tmp_path / "t.csv").write_text(table)
        build_index(tmp_path / "t.csv", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
        faulty.num_requests.clear()
        yield faulty


def test_a_bucket_gives_the_index_and_the_batches_of_the_folder(
    bucket: Any, photos: Path, tmp_path: Path
) -> None:
    near, far = build_index(photos), build_index(f"s3://{BUCKET}/set")
    assert far.table.select(TOLD).equals(near.table.select(TOLD).replace_schema_metadata(None)) or (
        far.table.select(TOLD).to_pylist() == near.table.select(TOLD).to_pylist()
    )
    assert far.classes == near.classes == ("cat", "dog")
    assert far.table["etag"].null_count == 0
    near.save(tmp_path / "near.parquet")
    far.save(tmp_path / "far.parquet")
    ours, theirs = read(tmp_path / "far.parquet"), read(tmp_path / "near.parquet")
    assert ours[1:] == theirs[1:]
    for one, other in zip(ours[0], theirs[0], strict=True):
        assert one.keys == other.keys
        assert torch.equal(one.images, other.images)


def test_refreshing_a_bucket_reads_only_what_changed(bucket: Any) -> None:
    first = build_index(f"s3://{BUCKET}/set")
    bucket.put_object(
        Bucket=BUCKET,
        Key="set/train/cat/000.jpg",
        Body=bucket.get_object(Bucket=BUCKET, Key="set/val/dog/001.jpg")["Body"].read(),
    )
    bucket.delete_object(Bucket=BUCKET, Key="set/train/dog/001.jpg")
    second = build_index(f"s3://{BUCKET}/set", previous=first)
    assert (second.summary()["source"]["read"], second.summary()["source"]["reused"]) == (1, 10)
    again = build_index(f"s3://{BUCKET}/set", previous=second)
    assert again.summary()["source"]["read"] == 0
    assert again.fingerprint() == second.fingerprint() != first.fingerprint()


@pytest.mark.fault("objects of a bucket deleted or replaced", times=3)
def test_deleted_or_changed_objects_of_a_bucket_make_only_their_images_fail(
    bucket: Any, tmp_path: Path
) -> None:
    build_index(f"s3://{BUCKET}/set").save(tmp_path / "index.parquet")
    bucket.delete_object(Bucket=BUCKET, Key="set/train/cat/000.jpg")
    bucket.put_object(Bucket=BUCKET, Key="set/train/cat/002.jpg", Body=b"shorter")
    whole = bucket.get_object(Bucket=BUCKET, Key="set/train/cat/004.jpg")["Body"].read()
    bucket.put_object(Bucket=BUCKET, Key="set/train/cat/004.jpg", Body=whole + b"longer")
    _, quarantine, counts = read(tmp_path / "index.parquet")
    reasons = {entry["key"]: entry["reason"] for entry in quarantine}
    assert "has vanished since it was indexed" in reasons["train/cat/000.jpg"]
    assert "got 7; the file changed" in reasons["train/cat/002.jpg"]
    assert "got more; the file changed" in reasons["train/cat/004.jpg"]
    assert counts == {"read": 12, "used": 9, "replaced": 3, "skipped": 0}


def test_a_missing_bucket_is_refused(bucket: Any) -> None:
    with pytest.raises(SourceError, match=r"nothing to list at 's3://nowhere/set'|no files in it"):
        build_index("s3://nowhere/set")


def test_a_remote_header_is_read_by_a_range_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    data = write_picture(tmp_path / "a.jpg", noise).read_bytes()
    assert len(data) > 1_000_000
    with faulty_server({f"/{BUCKET}/a.jpg": data}) as faulty:
        use_endpoint(monkeypatch, faulty.url)
        (tmp_path / "t.csv").write_text(f"path\ns3://{BUCKET}/a.jpg\n")
        index = build_index(tmp_path / "t.csv")
        assert index.table["width"].to_pylist() == [1600]
        assert faulty.sent_bytes <= 70_000


@pytest.mark.fault("a source that answers 500, breaks off, is slow or silent for a while", times=6)
def test_transient_faults_are_retried(served: Faulty, tmp_path: Path) -> None:
    reference, _, _ = read(tmp_path / "index.parquet")
    served.faults["*"] = ["500", "cut", "slow", "silent", "cut", "500"]
    batches, quarantine, counts = read(tmp_path / "index.parquet", max_wait_s=20)
    assert served.faults["*"] == []
    assert quarantine == []
    assert counts["used"] == 12
    assert all(torch.equal(a.images, b.images) for a, b in zip(batches, reference, strict=True))


@pytest.mark.fault("an object that never comes", times=3)
def test_an_object_that_always_fails_makes_only_its_image_fail(served: Faulty, tmp_path: Path) -> None:
    keys = Index.load(tmp_path / "index.parquet").table["key"].to_pylist()
    bad = [keys[3], keys[5], keys[9]]
    for key, fault in zip(bad, ["500!", "cut!", "silent!"], strict=True):
        served.faults["/" + key.removeprefix("s3://")] = [fault]
    _, quarantine, counts = read(
        tmp_path / "index.parquet", max_wait_s=4
    )  # others may be slow on a busy machine
    assert [entry["key"] for entry in quarantine] == bad
    assert all("while its source responds" in entry["reason"] for entry in quarantine)
    assert counts == {"read": 12, "used": 9, "replaced": 3, "skipped": 0}


@pytest.mark.fault("a source that is down: the run stops and names it")
@pytest.mark.parametrize("fault", ["500!", "silent!"])
def test_an_unavailable_source_stops_the_run_and_is_named(served: Faulty, tmp_path: Path, fault: str) -> None:
    served.faults["*"] = [fault]
    started = time.monotonic()
    with pytest.raises(
        SourceUnavailableError,
        match=rf"expected a response from s3://{BUCKET} within 1 s, got .* check the address",
    ):
        read(tmp_path / "index.parquet", max_wait_s=1)
    assert time.monotonic() - started < HANG_S


@pytest.mark.fault("a source that dies during a run: it stops and names it")
def test_a_source_that_fails_during_a_run_stops_it(served: Faulty, tmp_path: Path) -> None:
    plan = Plan.model_validate(
        {
            "index": tmp_path / "index.parquet",
            "errors": {"max_wait_s": 5},
            **RESIZE,
            "batch": {"size": 2},
        }
    )
    with LocalEngine(num_threads=1, prefetch=1).feed(plan, View()) as feed:
        batches = iter(feed)
        assert len(next(batches)) == 2
        served.faults["*"] = ["500!"]
        with pytest.raises(SourceUnavailableError, match=f"s3://{BUCKET}"):
            list(batches)
    assert feed.counts["replaced"] == 0


def test_an_unreachable_server_is_reported_when_indexing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(remote, "ATTEMPT_TIMEOUT_S", 0.5)
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    with pytest.raises(SourceUnavailableError, match=f"expected a response from s3://{BUCKET} within 1 s"):
        build_index(f"s3://{BUCKET}/set", max_wait_s=1)


@pytest.mark.fault("a source that sends garbage of the right length")
@pytest.mark.parametrize("hashed", [False, True])
def test_corrupt_data_of_the_right_length_is_detected(
    served: Faulty, tmp_path: Path, hashed: bool, photos: Path
) -> None:
    if hashed:
        build_index(tmp_path / "t.csv", fractions={"train": 1.0}, hash_content=True).save(
            tmp_path / "index.parquet"
        )
    bad = Index.load(tmp_path / "index.parquet").table["key"][3].as_py()
    served.faults["/" + bad.removeprefix("s3://")] = ["garbage!"]
    _, quarantine, _ = read(tmp_path / "index.parquet")
    assert [entry["key"] for entry in quarantine] == [bad]
    assert ("with the hash" if hashed else "expected a jpeg as indexed") in quarantine[0]["reason"]


def test_two_stores_do_not_share_connections_or_listings() -> None:
    first, second = RemoteStore(1), RemoteStore(1)
    fsspec.filesystem("memory").pipe("/two/a.bin", b"abc")
    assert first.read("memory://two/a.bin", 1, 5).data == b"bc"
    fsspec.filesystem("memory").pipe("/two/b.bin", b"b")
    assert list(second.find("memory://two")) == ["memory:///two/a.bin", "memory:///two/b.bin"]
    first.close()
    assert second.stat("memory://two/a.bin").bytes == 3


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(
        SourceError, match=r"expected .* protocols .*s3.*, got 'nonsense'; .*--allow-protocol nonsense"
    ):
        build_index("nonsense://bucket/set")


def test_paths_of_a_file_uri_and_in_memory_index_like_folders(tmp_path: Path) -> None:
    write_picture(tmp_path / "a b" / "cat" / "1.png", make_picture(0))
    write_picture(tmp_path / "a b" / "dog" / "1.png", make_picture(1))
    near = build_index(tmp_path / "a b")
    assert build_index(f"file://{tmp_path}/a%20b").table["uri"].to_pylist() == near.table["uri"].to_pylist()
    memory = fsspec.filesystem("memory")
    for key in ("cat/1.png", "dog/1.png"):
        memory.pipe(f"/set/{key}", (tmp_path / "a b" / key).read_bytes())
    far = build_index("memory://set")
    assert far.table.select(TOLD).to_pylist() == near.table.select(TOLD).to_pylist()
