"""Materializing: what is written is what the plan yields, read back by others' tools and by a plan of ours."""

from __future__ import annotations

import gc
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import PlanError, SourceError
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.jobs.find_job import find_job
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.load.decode.opencv import decode_opencv
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from pictures import make_folder, make_picture, write_picture
from tasks import multilabel_set

POLICY = [{"Resize": {"height": 24, "width": 32}}]
ENGINE = LocalEngine(num_threads=2)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Eleven pictures of two classes, the fourth of them cut off."""
    photos = make_folder(tmp_path / "photos", num_images=11)
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    build_index(photos, fractions={"test": 1.0}).save(tmp_path / "index.parquet")
    content = {"index": tmp_path / "index.parquet", "preprocess": POLICY, "batch": {"size": 3}}
    return Plan.model_validate({**content, "augment": ["HorizontalFlip", "RandomBrightnessContrast"]})


def own_rows(plan: Plan, view: View) -> dict[tuple[int, str], tuple[np.ndarray, int]]:
    """What the feed yields of images that are their own: by epoch and key."""
    with ENGINE.feed(plan, view) as feed:
        return {
            (batch.epoch, batch.keys[i]): (batch.images[i].numpy().copy(), int(batch.labels[i]))
            for batch in feed
            for i in range(len(batch))
            if not batch.replaced[i]
        }


def write(job: Materialize, out: Path) -> dict[str, object]:
    return dict(run_batch_job(job, ENGINE, out, SilentConsole()))


def test_the_job_is_listed() -> None:
    assert find_job("materialize") is Materialize


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves files open
def test_tar_shards_hold_what_the_feed_yields_and_webdataset_reads_them(plan: Plan, tmp_path: Path) -> None:
    import webdataset

    out = tmp_path / "out"
    job = Materialize(plan=plan, augment=True, epochs=2, shard_images=6)
    expected = own_rows(plan, job.view)
    found = write(job, out)
    shards = sorted(str(path) for path in out.glob("test-*.tar"))
    assert len(shards) == found["shards"] == 3
    read = {}
    for sample in webdataset.WebDataset(shards, shardshuffle=False, empty_check=False):
        told = json.loads(sample["json"])
        read[told["epoch"], told["key"]] = decode_opencv(sample["png"]), int(sample["cls"])
    gc.collect()
    assert read.keys() == expected.keys()
    for name, (image, label) in expected.items():
        assert np.array_equal(read[name][0], image)
        assert read[name][1] == label
    assert (found["read"], found["written"], found["replaced"]) == (22, 20, 2)
    assert json.loads((out / "_lightwell" / "counts.json").read_text())["used"] == 20


@pytest.mark.parametrize("epochs", [1, 2])
def test_another_plan_reads_the_tar_shards_by_their_index(plan: Plan, tmp_path: Path, epochs: int) -> None:
    out = tmp_path / "out"
    job = Materialize(plan=plan, augment=True, epochs=epochs, shard_images=6)
    expected = own_rows(plan, job.view)
    write(job, out)
    again = own_rows(Plan(index=out / "index.parquet"), View(split="test"))
    for (epoch, key), (image, label) in expected.items():
        found, its_label = again[0, key if epochs == 1 else f"epoch-{epoch}/{key}"]
        assert np.array_equal(found, image)
        assert its_label == label
    assert len(again) == len(expected)
    assert Index.load(out / "index.parquet").classes == ("cat", "dog")


def test_a_shard_that_changes_afterwards_is_noticed(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(Materialize(plan=plan), out)
    row = Index.load(out / "index.parquet").table.slice(4, 1).to_pylist()[0]
    data = bytearray((out / "test-000000.tar").read_bytes())
    data[row["offset"] + 100] ^= 1
    (out / "test-000000.tar").write_bytes(data)
    with ENGINE.feed(Plan(index=out / "index.parquet"), View()) as feed:
        list(feed)
        assert [entry["key"] for entry in feed.quarantine] == [row["key"]]


def test_parquet_shards_hold_the_same(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(Materialize(plan=plan, format="parquet", shard_images=6), out)
    expected = own_rows(plan, View())
    rows = [row for path in sorted(out.glob("test-*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [(row["epoch"], row["key"]) for row in rows] == list(expected)
    for row, (image, label) in zip(rows, expected.values(), strict=True):
        assert np.array_equal(decode_opencv(row["image"]["bytes"]), image)
        assert (row["label"], row["class"]) == (label, ("cat", "dog")[label])
    places = pq.read_table(out / "_lightwell" / "index.parquet").to_pylist()
    by_place = {(place["shard"], place["row"]): place["key"] for place in places}
    assert len(by_place) == 10
    for (shard, row), key in by_place.items():
        assert pq.read_table(out / shard)["key"][row].as_py() == key


def test_floats_go_into_arrays_as_the_batch_holds_them(plan: Plan, tmp_path: Path) -> None:
    normalize = {"Normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    floats = Plan.model_validate({**plan.dump(), "preprocess": [*POLICY, normalize]})
    with pytest.raises(PlanError, match="leave Normalize to the plan that reads the shards"):
        Materialize(plan=floats)
    out = tmp_path / "out"
    write(Materialize(plan=floats, encoding="npy"), out)
    expected = own_rows(floats, View())
    with tarfile.open(out / "test-000000.tar") as tar:
        arrays = [
            np.load(io.BytesIO(tar.extractfile(name).read()))  # type: ignore[union-attr]
            for name in tar.getnames()
            if name.endswith(".npy")
        ]
    assert len(arrays) == 10
    for array, (image, _) in zip(arrays, expected.values(), strict=True):
        assert array.dtype == np.float32
        assert np.array_equal(array, image)
    with pytest.raises(SourceError, match="materialize to png or jpeg"):
        Index.load(out / "index.parquet").rows()


def test_floats_of_a_policy_are_refused_by_name(plan: Plan, tmp_path: Path) -> None:
    floats = Plan.model_validate({**plan.dump(), "preprocess": [*POLICY, {"ToFloat": {"max_value": 255}}]})
    with pytest.raises(PlanError, match=r"expected uint8 pixels.*--encoding npy"):
        write(Materialize(plan=floats), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"augment": True, "plan": {"mix": {"kind": "CutMix"}}}, "expected a plan without mix"),
        ({"epochs": 2}, "expected 1 for a view that does not augment"),
    ],
)
def test_what_makes_no_sense_is_refused(plan: Plan, changes: dict[str, object], told: str) -> None:
    changed = {**changes, "plan": Plan.model_validate({**plan.dump(), **changes.get("plan", {})})}  # type: ignore[dict-item]
    with pytest.raises(PlanError, match=told):
        Materialize.model_validate(changed)


def test_jpeg_keeps_to_its_quality_and_boxes_and_masks_come_along(tmp_path: Path) -> None:
    from PIL import Image

    picture = make_picture(0, 60, 80)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 20:50] = 3
    write_picture(tmp_path / "a.png", picture)
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    (tmp_path / "table.csv").write_text('path,label,mask,boxes\na.png,cell,a_mask.png,"20,10,50,30"\n')
    build_index(tmp_path / "table.csv").save(tmp_path / "index.parquet")
    plan = Plan.model_validate(
        {"index": tmp_path / "index.parquet", "preprocess": [{"HorizontalFlip": {"p": 1.0}}]}
    )
    out = tmp_path / "out"
    write(Materialize(plan=plan, encoding="jpeg", quality=90), out)
    (shard,) = out.glob("*.tar")
    with tarfile.open(shard) as tar:
        files = {name.partition(".")[2]: tar.extractfile(name).read() for name in tar.getnames()}  # type: ignore[union-attr]
    assert set(files) == {"jpg", "cls", "json", "seg.png"}
    assert np.abs(decode_opencv(files["jpg"]).astype(int) - picture[:, ::-1]).mean() < 3
    assert np.array_equal(np.array(Image.open(io.BytesIO(files["seg.png"]))), mask[:, ::-1])
    np.testing.assert_allclose(json.loads(files["json"])["boxes"], [[30, 10, 60, 30]], atol=1e-3)
    with ENGINE.feed(Plan(index=out / "index.parquet"), View()) as feed:
        (batch,) = feed
    assert batch.masks is not None
    assert np.array_equal(batch.masks[0].numpy(), mask[:, ::-1])
    assert batch.boxes is not None
    np.testing.assert_allclose(batch.boxes[0], [[30, 10, 60, 30]], atol=1e-3)
    (record,) = pq.read_table(next(out.glob("_lightwell/stages/*/records.parquet"))).to_pylist()
    data = (out / record["shard"]).read_bytes()
    assert data[record["offset"] :][: record["bytes"]] == files["jpg"]
    assert data[record["mask_offset"] :][: record["mask_bytes"]] == files["seg.png"]


def test_an_earlier_result_in_the_folder_goes(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(Materialize(plan=plan, shard_images=3), out)
    assert len(list(out.glob("test-*"))) == 3
    write(Materialize(plan=plan, format="parquet"), out)
    assert [path.name for path in out.glob("test-*")] == ["test-000000.parquet"]
    assert not (out / "index.parquet").exists()


def test_batches_are_not_changed_by_writing_them(plan: Plan) -> None:
    (stage,) = Materialize(plan=plan).stages
    with ENGINE.feed(plan, View()) as feed, stage.open({}) as work:
        batch: Batch = next(iter(feed))
        before = batch.images.clone()
        records = work(batch)
    assert bool((batch.images == before).all())
    assert records["key"].to_pylist() == [key for i, key in enumerate(batch.keys) if not batch.replaced[i]]


@pytest.mark.parametrize("form", ["tar", "parquet"])
def test_sets_of_labels_come_along(form: str, tmp_path: Path) -> None:
    path, out = multilabel_set(tmp_path), tmp_path / "out"
    source = Index.load(path)
    plan = Plan.model_validate({"index": path, "preprocess": POLICY})
    write(Materialize.model_validate({"plan": plan, "format": form}), out)
    sets = source.table["labels"].to_pylist()
    expected = dict(zip(source.table["key"].to_pylist(), sets, strict=True))
    assert None in sets
    if form == "tar":
        written = Index.load(out / "index.parquet")
        columns = (written.table[name].to_pylist() for name in ("key", "labels"))
        assert dict(zip(*columns, strict=True)) == expected
        assert written.classes == source.classes
        anew = build_index(out)
        assert sorted(map(names_of, [anew] * len(anew), anew.table["labels"].to_pylist())) == sorted(
            names_of(source, one) for one in sets
        )
        with tarfile.open(out / "train-000000.tar") as file:
            assert {name.partition(".")[2] for name in file.getnames()} == {"png", "json"}
    else:
        table = pq.read_table(out / "train-000000.parquet")
        found = table["labels"].to_pylist()
        assert found == [expected[key] for key in table["key"].to_pylist()]
        assert [names or [] for names in table["classes"].to_pylist()] == [
            names_of(source, one) for one in found
        ]
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert features["labels"]["feature"]["names"] == list(source.classes)


def names_of(index: Index, numbers: list[int] | None) -> list[str]:
    return [index.classes[number] for number in numbers or ()]
