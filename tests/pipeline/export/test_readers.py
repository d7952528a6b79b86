"""What others read of materialized shards that were moved: WebDataset, Hugging Face datasets, Ray Data, pandas, pyarrow, we."""

from __future__ import annotations

import gc
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightwell import Index, LocalEngine, Plan, View, build_index
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.load.decode.opencv import decode_opencv
from lightwell.workers.local import run_batch_job
from pictures import make_picture, write_picture
from PIL import Image

CLASSES = ("007", "Größe / <b>", "cat")
ENGINE = LocalEngine(num_threads=2)


@dataclass(frozen=True)
class Sample:
    """What a reader finds of one sample."""

    split: str
    name: str | None
    """Of its class."""
    image: np.ndarray
    mask: np.ndarray | None
    boxes: list[list[float]] | None = field(default=None)


def write_source(folder: Path) -> Path:
    """Write 12 pictures with splits, classes of odd names, some masks, some boxes and one without a label."""
    lines = ["path,label,split,mask,boxes"]
    for number in range(12):
        write_picture(folder / f"{number}.png", make_picture(number, 20, 24))
        mask = ""
        if number % 3:
            mask = f"{number}-mask.png"
            values = np.zeros((20, 24), np.uint8)
            values[5:15, 6:18] = number
            Image.fromarray(values).save(folder / mask)
        label = "" if number == 5 else f'"{CLASSES[number % 3]}"'
        boxes = '"6,5,18,15"' if number % 2 else ""
        lines.append(f"{number}.png,{label},{('train', 'val', 'test')[number // 4]},{mask},{boxes}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    build_index(folder / "table.csv").save(folder / "index.parquet")
    return folder / "index.parquet"


def expected_of(index: Path) -> dict[str, Sample]:
    """What the feed yields."""
    found = Index.load(index)
    splits = dict(zip(found.table["key"].to_pylist(), found.table["split"].to_pylist(), strict=True))
    expected = {}
    with ENGINE.feed(Plan(index=index, batch={"size": 5}), View()) as feed:
        for batch in feed:
            assert batch.masks is not None
            assert batch.has_mask is not None
            assert batch.boxes is not None
            assert batch.has_boxes is not None
            for row, key in enumerate(batch.keys):
                label = int(batch.labels[row])
                expected[key] = Sample(
                    splits[key],
                    found.classes[label] if label >= 0 else None,
                    batch.images[row].numpy().copy(),
                    batch.masks[row].numpy().copy() if batch.has_mask[row] else None,
                    batch.boxes[row].tolist() if batch.has_boxes[row] else None,
                )
    return expected


def check(found: Mapping[str, Sample], expected: Mapping[str, Sample]) -> None:
    """Compare counts, splits, class names, boxes, pixels and masks."""
    assert found.keys() == expected.keys()
    assert Counter(one.split for one in found.values()) == Counter(one.split for one in expected.values())
    for key, one in expected.items():
        assert (found[key].split, found[key].name, found[key].boxes) == (one.split, one.name, one.boxes), key
        assert np.array_equal(found[key].image, one.image), key
        assert (found[key].mask is None) == (one.mask is None), key
        assert one.mask is None or np.array_equal(found[key].mask, one.mask), key


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Sample], dict[str, Path]]:
    """What was materialized, in both formats, moved from where it was written; the source is gone."""
    source, here = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("here")
    there = tmp_path_factory.mktemp("there") / "elsewhere"
    there.mkdir()
    index = write_source(source)
    expected = expected_of(index)
    folders = {}
    for kind in ("tar", "parquet"):
        job = Materialize(plan=Plan(index=index, batch={"size": 2}), format=kind, shard_images=4)
        run_batch_job(job, ENGINE, here / kind, SilentConsole())
        folders[kind] = (here / kind).rename(there / kind)
    for path in source.iterdir():
        path.unlink()
    return expected, folders


def gray(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data), formats=("PNG",)))


def of_row(row: Mapping[str, Any]) -> Sample:
    """Read a row of a Parquet shard, as pyarrow and pandas return it."""
    boxes = None if row["boxes"] is None else [[float(edge) for edge in box] for box in row["boxes"]]
    mask = gray(row["mask"]["bytes"]) if row["has_mask"] else None
    name = row["class"] if isinstance(row["class"], str) else None  # pandas may write NaN
    return Sample(row["split"], name, decode_opencv(row["image"]["bytes"]), mask, boxes)


def of_members(members: Mapping[str, Any]) -> tuple[str, Sample]:
    """Read the members of a sample in a tar shard."""
    metadata = json.loads(members["json"])
    assert int(members["cls"]) == metadata["label"]
    mask = gray(members["seg.png"]) if metadata["has_mask"] else None
    image = decode_opencv(members["png"])
    return metadata["key"], Sample(metadata["split"], metadata["class"], image, mask, metadata["boxes"])


Moved = tuple[dict[str, Sample], dict[str, Path]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset leaves files open
def test_webdataset_reads_the_moved_tar_shards(moved: Moved) -> None:
    import webdataset

    expected, folders = moved
    shards = sorted(map(str, folders["tar"].glob("*.tar")))
    wanted = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False)
    check(dict(of_members(one) for one in wanted), expected)
    tuples = list(
        webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).to_tuple("png", "cls", "seg.png")
    )
    assert len(tuples) == len(expected), "every sample has the same members"
    gc.collect()


def test_a_plan_of_ours_reads_the_moved_tar_shards_by_their_index(moved: Moved) -> None:
    expected, folders = moved
    check(expected_of(folders["tar"] / "index.parquet"), expected)


def test_indexing_the_moved_tar_shards_anew_gives_the_same_samples(moved: Moved, tmp_path: Path) -> None:
    expected, folders = moved
    built = build_index(folders["tar"])
    assert built.classes == Index.load(folders["tar"] / "index.parquet").classes
    built.save(tmp_path / "index.parquet")
    found = expected_of(tmp_path / "index.parquet")
    names = {one["key"]: name for one, name in zip(_descriptions(folders["tar"]), found, strict=True)}
    check({key: found[name] for key, name in names.items()}, expected)


def _descriptions(folder: Path) -> Iterator[dict[str, Any]]:
    import tarfile

    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    file = tar.extractfile(name)
                    assert file is not None
                    yield json.loads(file.read())


def test_pandas_and_pyarrow_read_the_moved_parquet_folder(moved: Moved) -> None:
    import pandas as pd
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    expected, folders = moved
    for rows in (
        pd.read_parquet(folders["parquet"]).to_dict("records"),
        ds.dataset(folders["parquet"], format="parquet").to_table().to_pylist(),
        pq.read_table(folders["parquet"]).to_pylist(),
    ):
        check({row["key"]: of_row(row) for row in rows}, expected)


@pytest.mark.filterwarnings("ignore")  # of Hugging Face's own code
def test_hugging_face_datasets_reads_both_with_splits_images_and_class_names(
    moved: Moved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    expected, folders = moved
    splits = {"train": "train", "validation": "val", "test": "test"}
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(folders["parquet"]), cache_dir=str(tmp_path / "parquet")
    )
    found = {}
    for name, rows in loaded.items():
        labels = rows.features["label"]
        assert isinstance(labels, datasets.ClassLabel)
        for row in rows:
            named = labels.int2str(row["label"]) if row["label"] >= 0 else None
            assert row["split"] == splits[name]
            mask = np.asarray(row["mask"]) if row["has_mask"] else None
            found[row["key"]] = Sample(row["split"], named, np.asarray(row["image"]), mask, row["boxes"])
    check(found, expected)

    loaded = datasets.load_dataset(
        "webdataset", data_dir=str(folders["tar"]), cache_dir=str(tmp_path / "tar")
    )
    found = {}
    for name, rows in loaded.items():
        for row in rows:
            told = row["json"]
            assert told["split"] == splits[name]
            mask = np.asarray(row["seg.png"]) if told["has_mask"] else None
            found[told["key"]] = Sample(
                told["split"], told["class"], np.asarray(row["png"]), mask, told["boxes"]
            )
    check(found, expected)


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # of Ray Data's own code
def test_ray_data_reads_both(moved: Moved) -> None:
    import ray
    from lightwell.workers.ray.cluster import connected

    expected, folders = moved
    with connected():
        rows = ray.data.read_parquet(str(folders["parquet"])).take_all()
        check({row["key"]: of_row(row) for row in rows}, expected)
        samples = ray.data.read_webdataset(
            sorted(map(str, folders["tar"].glob("*.tar"))), decoder=None
        ).take_all()
        check(dict(of_members(one) for one in samples), expected)
