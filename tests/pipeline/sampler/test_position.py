"""A position is small JSON; a feed goes on from it, with any number of ranks, and refuses what it does not fit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pyarrow as pa
import pytest
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.index import SCHEMA, Index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_batch, digest_feed

VIEW = View(shuffle=True, num_epochs=3)


@pytest.fixture
def plan(index_path: Path) -> Plan:
    policy = [A.Resize(16, 16)]
    return Plan.model_validate({"index": index_path, "preprocess": policy, "batch": {"size": 8}})


@pytest.fixture
def position(plan: Plan) -> Iterator[dict[str, Any]]:
    """Behind the fourth batch of nine."""
    with LocalEngine(num_threads=1).feed(plan, VIEW) as feed:
        for _ in zip(range(4), feed, strict=False):
            pass
        yield feed.position()


def test_it_says_where_the_consumer_stands_and_not_the_prefetcher(
    plan: Plan, position: dict[str, Any]
) -> None:
    assert (position["version"], position["epoch"], position["step"]) == (1, 1, 1)
    assert position["plan"] == plan.fingerprint()


def test_it_stays_small_however_many_keys_a_view_names(plan: Plan, index_path: Path) -> None:
    keys = tuple(Index.load(index_path).table["key"].to_pylist() * 1000)
    with LocalEngine(num_threads=1).feed(plan, View(keys=keys)) as feed:
        assert len(json.dumps(feed.position())) < 400


def test_a_run_of_one_rank_goes_on_with_four(plan: Plan, position: dict[str, Any]) -> None:
    engine = LocalEngine(num_threads=1)
    left = digest_feed(engine.feed(plan, VIEW))[4:]
    for rank in range(4):
        slices = digest_feed(engine.feed(plan, replace(VIEW, rank=rank, num_ranks=4), position))
        assert [batch.rows for batch in slices] == [batch.rows[2 * rank : 2 * rank + 2] for batch in left]


def test_a_feed_that_is_iterated_again_goes_on_where_its_consumer_stands(plan: Plan) -> None:
    whole = digest_feed(LocalEngine(num_threads=1).feed(plan, VIEW))
    with LocalEngine(num_threads=1).feed(plan, VIEW) as feed:
        first = digest_batch(next(iter(feed)))
        assert [first, *map(digest_batch, feed)] == whole


def test_the_end_is_a_position_behind_which_nothing_is_left(plan: Plan) -> None:
    with LocalEngine(num_threads=1).feed(plan, VIEW) as feed:
        for _ in feed:
            pass
        end = feed.position()
    with LocalEngine(num_threads=1).feed(plan, VIEW, end) as feed:
        assert feed.num_batches == 0
        assert list(feed) == []


def test_another_plan_view_or_content_is_refused(plan: Plan, position: dict[str, Any]) -> None:
    engine = LocalEngine(num_threads=1)
    with pytest.raises(PlanError, match=r"expected one of this plan .* got one of another"):
        engine.feed(plan.model_copy(update={"seed": 1}), VIEW, position)
    with pytest.raises(PlanError, match=r"got one where shuffle was True and is False; open the view"):
        engine.feed(plan, replace(VIEW, shuffle=False), position)
    with pytest.raises(PlanError, match=r"num_epochs was 3 and is 4"):
        engine.feed(plan, replace(VIEW, num_epochs=4), position)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "expected version 1, got 2; pass a position"),
        ({"step": 3}, "expected a step below 3 in epochs 0 to 2, got epoch 1, step 3"),
        ({"step": "1"}, "got epoch 1, step '1'"),
        ({"step": -1}, "got epoch 1, step -1"),
        ({"epoch": 4}, "got epoch 4"),
        ({"epoch": True}, "got epoch True"),
        ({"view": None}, "expected one of this view, got one where"),
        ({"more": 1}, "expected the keys"),
    ],
)
def test_what_is_no_position_is_refused(
    plan: Plan, position: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        LocalEngine(num_threads=1).feed(plan, VIEW, {**position, **changes})


def test_text_is_no_position(plan: Plan) -> None:
    with pytest.raises(PlanError, match="got str; pass a position"):
        LocalEngine(num_threads=1).feed(plan, VIEW, "epoch 3")  # type: ignore[arg-type]


def test_restoring_far_into_a_million_images_takes_no_longer_than_starting(tmp_path: Path) -> None:
    """``-s`` prints the times, of the processor. No file is there: none is read before the first batch."""
    path = write_huge_index(tmp_path)
    plan = Plan.model_validate({"index": path, "batch": {"size": 64}})
    view = View(shuffle=True, num_epochs=100)
    engine = LocalEngine(num_threads=1)
    with engine.feed(plan, view) as feed:
        start = feed.position()
    far = {**start, "epoch": 50, "step": 7_812}
    seconds: dict[str, list[float]] = {"no position": [], "epoch 0": [], "epoch 50": [], "batch": []}
    for _ in range(2):
        for name, position in (("no position", None), ("epoch 0", start), ("epoch 50", far)):
            began = time.process_time()
            feed = engine.feed(plan, view, position)
            seconds[name].append(time.process_time() - began)
        began = time.process_time()
        spec = next(feed._opened.schedule.batches(feed._feed_state.next))
        seconds["batch"].append(time.process_time() - began)
    best = {name: min(times) for name, times in seconds.items()}
    told = ", ".join(f"{name} {value:.4f}" for name, value in best.items())
    print(f"\n1,000,000 images, seconds of a processor: {told}")  # noqa: T201  (the figure, for those who ask for it with -s)
    assert (spec.epoch, spec.step, len(spec.rows)) == (50, 7_812, 64)
    assert feed.num_batches == 50 * 15_625 - 7_812
    assert best["epoch 50"] < 1.5 * best["epoch 0"] + 0.2
    assert best["batch"] < 0.05


def write_huge_index(folder: Path) -> Path:
    """An index of a million pictures that are nowhere."""
    count = 1_000_000
    numbers = pa.array(np.arange(count))
    columns: dict[str, pa.Array] = {
        "key": numbers.cast(pa.string()),
        "uri": numbers.cast(pa.string()),
        "bytes": numbers,
        "status": pa.repeat("ok", count),
        "width": pa.repeat(np.int32(640), count),
        "height": pa.repeat(np.int32(480), count),
        "orientation": pa.repeat(np.int8(1), count),
        "label": numbers,
        "mtime_ns": numbers,
    }
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in SCHEMA]
    Index(pa.Table.from_arrays(arrays, schema=SCHEMA), ()).save(folder / "huge.parquet")
    return folder / "huge.parquet"
