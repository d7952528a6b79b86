"""Same plan, same seed, same batches: threads x prefetch x restart at every batch x ranks, bad files among the images.

``pytest tests/pipeline/runtime/test_same_batches.py -s`` prints the matrix.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
from lightwell.pipeline.compiler.routing import Backend
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.cache_options import CacheOptions
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import BatchDigest, assert_ranks_add_up, digest_batch, merge_ranks
from pictures import make_folder

POLICY = [
    A.RandomResizedCrop((32, 32)),
    A.HorizontalFlip(),
    A.GaussNoise(p=0.5),
    A.RandomBrightnessContrast(),
]
THREADS, PREFETCH, RANKS = (1, 2, 4), (1, 8), (1, 2, 4)
RESTARTS = (1, 3, 6)
"""Batches after which a feed is taken up again: inside an epoch, at its end, at the end of all."""
TRAINING = View(shuffle=True, augment=True, num_epochs=2)


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 JPEGs, two of which were cut off or emptied after indexing; 8 do not divide them, nor do 2 and 4 the rest."""
    folder = tmp_path_factory.mktemp("matrix")
    path = folder / "index.parquet"
    index = build_index(make_folder(folder / "photos", num_images=21), fractions={"train": 1.0})
    index.save(path)
    for number, share in ((4, 2), (13, 0)):
        file = Path(index.table["uri"][number].as_py())
        file.write_bytes(file.read_bytes()[: file.stat().st_size // share if share else 0])
    return path


def plan_for(index_path: Path, **changes: object) -> Plan:
    content = {"index": index_path, "augment": POLICY, "batch": {"size": 8}, "seed": 3, **changes}
    return Plan.model_validate(content)


def read(
    engine: LocalEngine, plan: Plan, view: View, num_ranks: int, position: dict[str, Any] | None
) -> tuple[list[BatchDigest], list[dict[str, Any]], dict[str, int]]:
    """What all ranks read together, the positions behind each batch, and their counts together."""
    ranks, positions, counts = [], [], {"read": 0, "used": 0, "replaced": 0}
    for rank in range(num_ranks):
        with engine.feed(plan, replace(view, rank=rank, num_ranks=num_ranks), position) as feed:
            stops = [feed.position()]
            facts = []
            for batch in feed:
                facts.append(digest_batch(batch))
                stops.append(json.loads(json.dumps(feed.position())))
            counts = {name: count + feed.counts[name] for name, count in counts.items()}
        ranks.append(facts)
        positions.append(stops)
    assert all(stops == positions[0] for stops in positions)  # a position belongs to no rank
    return merge_ranks(ranks), positions[0], counts


def hash_of(facts: list[BatchDigest]) -> str:
    return hashlib.blake2b(repr(facts).encode(), digest_size=5).hexdigest()


@pytest.mark.parametrize("backend", ["opencv", pytest.param("dali", marks=pytest.mark.slow)])
def test_threads_prefetch_ranks_and_restarts_change_no_batch(index_path: Path, backend: Backend) -> None:
    plan = plan_for(index_path)
    first = LocalEngine(num_threads=1, prefetch=1, backend=backend)
    expected, positions, counts = read(first, plan, TRAINING, 1, None)
    assert len(expected) == 6
    assert counts == {"read": 42, "used": 38, "replaced": 4}
    assert sum(row.replaced for batch in expected for row in batch.rows) == 4
    lines = [
        f"{backend}: 21 images, 2 bad; each column the hash of all batches",
        f"{'threads':>8} {'prefetch':>8} {'ranks':>6} {'whole':>11}   restarted after batch {RESTARTS}",
    ]
    for threads, prefetch, ranks in product(THREADS, PREFETCH, RANKS):
        engine = LocalEngine(num_threads=threads, prefetch=prefetch, backend=backend)
        whole, stops, sums = read(engine, plan, TRAINING, ranks, None)
        assert (whole, stops, sums) == (expected, positions, counts)
        hashes = [hash_of(whole)]
        for done in RESTARTS:
            rest, left, _ = read(engine, plan, TRAINING, ranks, positions[done])
            assert (rest, left) == (expected[done:], positions[done:])
            hashes.append(hash_of(expected[:done] + rest))
        lines.append(f"{threads:8} {prefetch:8} {ranks:6} {hashes[0]:>11}   {' '.join(hashes[1:])}")
    print("", *lines, sep="\n")  # noqa: T201  (the matrix, for those who ask for it with -s)


@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_ranks_mix_across_their_borders_as_one_rank_does(
    index_path: Path, kind: str, normalised: bool, num_ranks: int
) -> None:
    policy = [*POLICY, A.Normalize(mean=(0.4,) * 3, std=(0.2,) * 3)] if normalised else POLICY
    plan = plan_for(index_path, mix={"kind": kind, "alpha": 1.0, "p": 0.8}, augment=policy)
    assert_ranks_add_up(LocalEngine(num_threads=2), plan, TRAINING, num_ranks=num_ranks)


def test_sampled_epochs_are_shared_by_ranks_too(index_path: Path) -> None:
    plan = plan_for(index_path, sampling={"weights": {"cat": 3}})
    assert_ranks_add_up(LocalEngine(num_threads=2), plan, TRAINING, num_ranks=4)
    labels = [row.label for batch in read(LocalEngine(), plan, TRAINING, 1, None)[0] for row in batch.rows]
    drawn = {name: number for number, name in enumerate(Index.load(index_path).classes)}
    assert (
        abs(labels.count(drawn["cat"]) - 3 * labels.count(drawn["dog"])) <= 10
    )  # replaced ones may be of either


@pytest.mark.parametrize("backend", ["opencv", "dali"])
def test_images_that_grow_over_the_epochs_are_the_same_with_any_threads_ranks_and_restart(
    index_path: Path, tmp_path: Path, backend: Backend
) -> None:
    steps = [{"until_epoch": 1, "size": 16}, {"until_epoch": 2, "size": [24, 20]}]
    cache = tmp_path / "cache" if backend == "opencv" else None
    plan = plan_for(index_path, preprocess=[A.Resize(48, 48)], mix={"kind": "CutMix"}, progressive_size=steps)
    view = replace(TRAINING, num_epochs=3)
    engine = LocalEngine(num_threads=1, prefetch=1, backend=backend)
    expected, positions, _ = read(engine, plan, view, 1, None)
    cached = plan.model_copy(update={"cache": CacheOptions(dir=cache)} if cache else {})
    for ranks, done in ((1, 0), (2, 0), (4, 2), (1, 4), (2, 7)) if cache else ((2, 2),):
        again = LocalEngine(num_threads=2, prefetch=8, backend=backend)
        assert read(again, cached, view, ranks, positions[done])[:2] == (expected[done:], positions[done:])
    sized = {(16, 16): 0, (24, 20): 1, (32, 32): 2} if cache else {(24, 20): 1}
    for (height, width), epoch in sized.items():
        policy = [A.RandomResizedCrop((height, width)), *POLICY[1:]]
        whole = plan_for(index_path, preprocess=[A.Resize(48, 48)], mix={"kind": "CutMix"}, augment=policy)
        only = replace(view, first_epoch=epoch, num_epochs=1)
        assert read(engine, whole, only, 1, None)[0] == expected[3 * epoch : 3 * epoch + 3]
    with engine.feed(plan, View()) as feed:
        assert {tuple(batch.images.shape[1:3]) for batch in feed} == {(48, 48)}  # evaluation keeps its size


@pytest.mark.parametrize("augment", [False, True])
def test_a_last_batch_of_one_image_is_padded_and_counted_once(index_path: Path, augment: bool) -> None:
    """Twenty-one images in batches of four: the last one is a single image, which four ranks have to share."""
    mix = {"kind": "MixUp"} if augment else None
    plan = plan_for(index_path, batch={"size": 4}, preprocess=[A.Resize(32, 32)], mix=mix)
    last = []
    read_count = 0
    for rank in range(4):
        with LocalEngine(num_threads=1).feed(plan, View(augment=augment, rank=rank, num_ranks=4)) as feed:
            batches = list(feed)
        assert [len(batch) for batch in batches] == [1] * 6
        assert feed.counts["read"] == feed.counts["used"] + feed.counts["replaced"]
        read_count += feed.counts["read"]
        last.append(batches[-1])
    assert read_count == 21
    assert [batch.padding.tolist() for batch in last] == [[False], [True], [True], [True]]
    assert [batch.num_images for batch in last] == [1, 0, 0, 0]
    assert len({batch.keys for batch in last}) == 1
    assert [len(batch.without_padding()) for batch in last] == [1, 0, 0, 0]


def test_ranks_that_drop_the_last_batch_drop_the_same_one(index_path: Path) -> None:
    view = replace(TRAINING, drop_last=True)
    plan = plan_for(index_path)
    assert_ranks_add_up(LocalEngine(num_threads=1), plan, view, num_ranks=4)
    assert [len(batch.rows) for batch in read(LocalEngine(), plan, view, 4, None)[0]] == [8] * 4


def test_rows_with_bad_headers_are_counted_by_one_rank(tmp_path: Path) -> None:
    photos = make_folder(tmp_path / "photos", num_images=9)
    (photos / "cat" / "000.jpg").write_bytes(b"no picture")
    build_index(photos, fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    plan = plan_for(tmp_path / "index.parquet")
    feeds = [LocalEngine().feed(plan, replace(TRAINING, rank=rank, num_ranks=2)) for rank in (0, 1)]
    assert [feed.counts["skipped"] for feed in feeds] == [1, 0]
    assert_ranks_add_up(LocalEngine(num_threads=1), plan, TRAINING, num_ranks=2)


def test_a_bad_file_that_is_drawn_often_is_listed_once_an_epoch_and_counted_each_time(
    index_path: Path,
) -> None:
    plan = plan_for(index_path, sampling={"weights": {"cat": 8}})
    with LocalEngine(num_threads=2).feed(plan, TRAINING) as feed:
        num_replaced = sum(int(batch.replaced.sum()) for batch in feed)
    listed = [(entry["key"], entry["epoch"]) for entry in feed.quarantine]
    assert len(set(listed)) == len(listed) < num_replaced == feed.counts["replaced"]
