"""The Ray engine yields the local engine's batches, counts and errors, for any number of workers."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from annotated import drawn_scene, write_index
from lightwell.pipeline.errors import PlanError, RunError, SampleError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Feed
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.pipeline.runtime.open_view import OpenView
from lightwell.testing import BatchDigest, digest_batch
from lightwell.workers.ray import engine
from lightwell.workers.ray.cluster import NodeResources, ResourceRequest, Resources
from lightwell.workers.ray.engine import RayEngine
from patience import HANG_S
from pictures import make_folder, make_picture, write_picture

pytestmark = pytest.mark.ray

LOCAL = LocalEngine(num_threads=1)
TRAINING = View(shuffle=True, augment=True, num_epochs=2)
POLICY = [A.RandomResizedCrop((32, 32)), A.HorizontalFlip(), A.GaussNoise(p=0.5)]
NORMALIZE = [A.Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 JPEGs, two of which were cut off or emptied after indexing, one before."""
    folder = tmp_path_factory.mktemp("ray")
    photos = make_folder(folder / "photos", num_images=22)
    files = sorted(photos.rglob("*.jpg"))
    files[7].write_bytes(files[7].read_bytes()[:50])
    index = build_index(photos, fractions={"train": 1.0})
    index.save(folder / "index.parquet")
    for number, share in ((4, 2), (13, 0)):
        data = files[number].read_bytes()
        files[number].write_bytes(data[: len(data) // share if share else 0])
    return folder / "index.parquet"


def plan_for(index_path: Path, **changes: object) -> Plan:
    content = {"index": index_path, "augment": POLICY, "batch": {"size": 4}, "seed": 3, **changes}
    return Plan.model_validate(content)


def read(feed: Feed) -> tuple[list[BatchDigest], list[dict[str, Any]], list[Any], dict[str, int]]:
    """All that a feed yields and says."""
    facts, positions = [], [feed.position()]
    with feed:
        for batch in feed:
            facts.append(digest_batch(batch))
            positions.append(json.loads(json.dumps(feed.position())))
    return facts, positions, feed.quarantine, feed.counts


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("num_workers", [1, 4])
def test_batches_and_books_equal_those_of_the_local_engine(index_path: Path, num_workers: int) -> None:
    plan = plan_for(
        index_path,
        preprocess=NORMALIZE,
        mix={"kind": "MixUp", "p": 0.7},
        progressive_size=[{"until_epoch": 1, "size": 24}],
    )
    expected = read(LOCAL.feed(plan, TRAINING))
    assert len(expected[0]) == 12
    assert expected[3] == {"read": 42, "used": 38, "replaced": 4, "skipped": 1}
    assert read(RayEngine(num_workers=num_workers).feed(plan, TRAINING)) == expected


@pytest.mark.usefixtures("cluster")
def test_it_goes_on_from_a_position_of_the_local_engine_with_a_cache(
    index_path: Path, tmp_path: Path
) -> None:
    plan = plan_for(index_path, preprocess=[A.Resize(48, 48)], cache=tmp_path / "cache", batch={"size": 6})
    facts, positions, _, _ = read(
        LOCAL.feed(plan_for(index_path, preprocess=[A.Resize(48, 48)], batch={"size": 6}), TRAINING)
    )
    engine = RayEngine(num_workers=2)
    cold = engine.feed(plan, TRAINING, positions[3])
    assert read(cold)[:2] == (facts[3:], positions[3:])
    assert read(engine.feed(plan, TRAINING))[:2] == (facts, positions)
    assert list((tmp_path / "cache").rglob("*.arrow"))


@pytest.fixture(scope="module")
def targets_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine pictures, each with a mask and up to two boxes; one mask was lost after indexing."""
    folder = tmp_path_factory.mktemp("targets")
    rows = ["path,label,mask,boxes"]
    for number in range(9):
        write_picture(folder / f"{number}.png", make_picture(number, 60 + number, 80))
        mask = np.zeros((60 + number, 80), np.uint8)
        mask[10:40, 5 * number : 40 + number] = number + 1
        write_picture(folder / f"{number}_mask.png", mask[..., None])
        boxes = ";".join(["20,10,50,30", "5,5,70,55"][: number % 3])
        rows.append(f'{number}.png,cell,{number}_mask.png,"{boxes}"')
    (folder / "table.csv").write_text("\n".join(rows) + "\n")
    build_index(folder / "table.csv").save(folder / "index.parquet")
    (folder / "4_mask.png").unlink()
    return folder / "index.parquet"


@pytest.mark.usefixtures("cluster")
def test_masks_and_boxes_travel_with_their_pictures(targets_path: Path) -> None:
    augment = [A.RandomCrop(48, 48), A.HorizontalFlip()]
    plan = plan_for(targets_path, augment=augment, batch={"size": 2}, errors={"max_bad": 4})
    expected = read(LOCAL.feed(plan, TRAINING))
    with LOCAL.feed(plan, TRAINING) as feed:
        shown = list(feed)
    assert all(batch.masks is not None and batch.masks.any() for batch in shown)
    assert {len(boxes) for batch in shown for boxes in batch.boxes or ()} == {0, 1, 2}
    assert expected[3] == {"read": 18, "used": 16, "replaced": 2, "skipped": 0}
    assert read(RayEngine(num_workers=2).feed(plan, TRAINING)) == expected


@pytest.mark.usefixtures("cluster")
def test_what_is_left_out_travels(index_path: Path) -> None:
    plan = plan_for(
        index_path, batch={"size": 1}, augment=[A.RandomCrop(16, 16)], errors={"on_error": "skip"}
    )
    expected = read(LOCAL.feed(plan, View(augment=True)))
    assert len(expected[0]) == 19
    assert read(RayEngine(num_workers=2).feed(plan, View(augment=True))) == expected


@pytest.mark.usefixtures("cluster")
def test_pixels_that_dali_made_are_the_same(index_path: Path) -> None:
    plan = plan_for(index_path, preprocess=NORMALIZE)
    expected = read(LocalEngine(num_threads=1, backend="dali").feed(plan, TRAINING))
    assert expected[3] == {"read": 42, "used": 38, "replaced": 4, "skipped": 1}
    assert expected[0] != read(LOCAL.feed(plan, TRAINING))[0], "not made by OpenCV instead"
    assert read(RayEngine(num_workers=2, backend="dali").feed(plan, TRAINING)) == expected


@pytest.mark.usefixtures("cluster")
def test_a_cache_that_a_cluster_fills_changes_no_batch_and_any_engine_reads_it(
    index_path: Path, tmp_path: Path
) -> None:
    """Three workers do not fit on one node."""
    preprocess = [A.Resize(48, 48), *NORMALIZE]
    expected = read(LOCAL.feed(plan_for(index_path, preprocess=preprocess), TRAINING))
    plan = plan_for(index_path, preprocess=preprocess, cache=tmp_path / "cache")
    engine = RayEngine(num_workers=3)
    assert read(engine.feed(plan, TRAINING)) == expected
    warm = LOCAL.feed(plan, TRAINING)
    assert read(warm) == expected
    assert warm.cache_counts["hits"] == 42
    assert warm.cache_counts["added"] == 0
    again = engine.feed(plan, TRAINING)
    assert read(again) == expected
    assert again.stats().cache_hits > 0


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("rank", "num_ranks"), [(1, 2), (3, 4)])
def test_every_rank_gets_its_slices(index_path: Path, rank: int, num_ranks: int) -> None:
    plan = plan_for(index_path, mix={"kind": "CutMix"})
    view = replace(TRAINING, rank=rank, num_ranks=num_ranks)
    expected = read(LOCAL.feed(plan, view))
    assert len(expected[0]) == 12
    assert read(RayEngine(num_workers=1).feed(plan, view)) == expected


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("errors", [{"on_error": "raise"}, {"max_bad": 1}])
def test_a_run_ends_at_the_same_batch_with_the_same_words(
    index_path: Path, errors: dict[str, object]
) -> None:
    plan = plan_for(index_path, errors=errors)

    def until_it_ends(feed: Feed) -> tuple[list[BatchDigest], str, str, list[Any], dict[str, int]]:
        facts = []
        with pytest.raises((SampleError, RunError)) as raised, feed:  # noqa: PT012
            for batch in feed:
                facts.append(digest_batch(batch))
        return facts, type(raised.value).__name__, str(raised.value), feed.quarantine, feed.counts

    assert until_it_ends(RayEngine(num_workers=2).feed(plan, TRAINING)) == until_it_ends(
        LOCAL.feed(plan, TRAINING)
    )


@pytest.mark.usefixtures("cluster")
def test_the_statistics_add_up(index_path: Path) -> None:
    with RayEngine(num_workers=1).feed(
        plan_for(index_path, batch={"size": 2}), replace(TRAINING, num_epochs=20)
    ) as feed:
        num_images = sum(len(batch) for batch in feed)
    stats = feed.stats()
    assert stats.num_samples == num_images == 420
    assert stats.moved_bytes > 420 * 32 * 32 * 3
    assert stats.seconds("process", "decode") > 0
    for thread in stats.threads:
        assert sum(thread.seconds.values()) == pytest.approx(thread.wall_s, rel=1e-6)
    assert {thread.stage for thread in stats.threads} == {"read", "process", "consume"}
    assert any("moved" in line for line in stats.lines())


def test_a_wrong_request_never_reaches_ray(index_path: Path, tmp_path: Path) -> None:
    nowhere = RayEngine("127.0.0.1:1")
    with pytest.raises(PlanError, match="backend opencv"):
        replace(nowhere, backend="dali").feed(plan_for(index_path, decode="exact", cache=tmp_path), TRAINING)
    with pytest.raises(PlanError, match="position: expected"):
        nowhere.feed(plan_for(index_path), TRAINING, {"batch": 3})
    with pytest.raises((RunError, PlanError), match=r"got no answer|is connected to"):
        nowhere.feed(plan_for(index_path), TRAINING)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("engine", "told"),
    [
        (RayEngine(num_workers=1, per_worker=Resources(3)), "largest node has 2 CPUs"),
        (RayEngine(num_workers=5), "1 of them never fit"),
        (RayEngine(num_workers=3, per_worker=Resources(1.5)), "1 of them never fit"),
    ],
)
def test_workers_that_never_fit_are_refused_at_once(index_path: Path, engine: RayEngine, told: str) -> None:
    started = time.monotonic()
    with pytest.raises(PlanError, match=told):
        engine.feed(plan_for(index_path), TRAINING)
    assert time.monotonic() - started < HANG_S


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("requested", "held"),
    [
        (ResourceRequest(), Resources(2, 0.5)),
        (ResourceRequest(cpus=1), Resources(1, 0.5)),
        (ResourceRequest(gpus=0), Resources(2, 0)),
        (Resources(), Resources(1, 0)),
    ],
)
def test_the_plan_says_what_workers_hold_where_nobody_else_does(
    index_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    requested: ResourceRequest | Resources,
    held: Resources,
) -> None:
    room = [NodeResources(4, 4)]
    monkeypatch.setattr(engine, "list_nodes", lambda: room)
    plan = plan_for(index_path, resources={"cpus": 2, "gpus": 0.5}, device="gpu")
    opened = OpenView.of(plan, TRAINING)
    assert RayEngine(num_workers=1, per_worker=requested).batch_pool(opened).per_worker == held


@pytest.mark.usefixtures("cluster")
def test_resources_of_the_plan_that_never_fit_are_refused_at_once(index_path: Path) -> None:
    plan = plan_for(index_path, resources={"cpus": 3})
    with pytest.raises(PlanError, match="largest node has 2 CPUs"):
        RayEngine(num_workers=1).feed(plan, TRAINING)
    with RayEngine(num_workers=1, per_worker=ResourceRequest(cpus=1)).feed(plan, TRAINING) as feed:
        assert len(next(iter(feed))) == 4


@pytest.mark.usefixtures("cluster")
def test_every_kind_of_annotation_travels(tmp_path: Path) -> None:
    scenes = [drawn_scene(f"{number}.png", number, orientation=1 + number % 8) for number in range(9)]
    scenes[3].mask = scenes[4].boxes = scenes[4].box_labels = scenes[5].keypoints = None
    path = write_index(tmp_path, scenes)
    for mix in (None, {"kind": "CutMix", "alpha": 1.0}):
        plan = plan_for(path, augment=[A.RandomCrop(96, 96), A.D4(p=1)], batch={"size": 4}, mix=mix)
        assert read(RayEngine(num_workers=2).feed(plan, TRAINING)) == read(LOCAL.feed(plan, TRAINING))
