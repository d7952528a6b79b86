"""What the rules for errors, the cache, positions and ranks promise, they promise together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
from cached import hashes_of
from lightwell.pipeline.errors import PlanError, RunError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.index.index import Index
from lightwell.pipeline.plan.error_policy import MIN_IMAGES_FOR_SHARE
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import assert_ranks_add_up, assert_resumes_everywhere
from pictures import make_picture, write_picture
from PIL import Image

NUM_PICTURES = 12
SKIP = {"on_error": "skip", "max_bad_share": None}
ENGINE = LocalEngine(num_threads=2)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Index a few pictures with masks, listed in a table."""
    rows = ["path,label,mask"]
    for number in range(NUM_PICTURES):
        write_picture(tmp_path / f"{number:02}.jpg", make_picture(number, 50, 60))
        mask = np.full((50, 60), number, np.uint8)
        Image.fromarray(mask).save(tmp_path / f"{number:02}-mask.png")
        rows.append(f"{number:02}.jpg,a,{number:02}-mask.png")
    (tmp_path / "set.csv").write_text("\n".join(rows) + "\n")
    build_index(tmp_path / "set.csv", fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    return tmp_path / "index.parquet"


def plan_for(index: Path, **changes: Any) -> Plan:
    plan = {
        "index": index,
        "preprocess": [A.Resize(32, 32)],
        "augment": [A.HorizontalFlip()],
        "batch": {"size": 2},
    }
    return Plan.model_validate({**plan, **changes})


def keys_of(index: Path) -> tuple[str, ...]:
    return tuple(Index.load(index).table["key"].to_pylist())


def empty(index: Path, *numbers: int) -> None:
    for number in numbers:
        (index.parent / f"{number:02}.jpg").write_bytes(b"")


@pytest.mark.parametrize("rule", ["replace", "skip"])
def test_a_feed_stops_where_its_share_of_bad_images_is_too_large(index: Path, rule: str) -> None:
    empty(index, 1, 4)
    plan = plan_for(index, errors={"on_error": rule})
    enough = View(num_epochs=MIN_IMAGES_FOR_SHARE // NUM_PICTURES)
    with ENGINE.feed(plan, enough) as feed:
        assert sum(len(batch) + batch.num_skipped for batch in feed) == enough.num_epochs * NUM_PICTURES
    longer = View(num_epochs=enough.num_epochs + 1)
    with pytest.raises(RunError, match=r"at most 10.0% bad images \(errors.max_bad_share\), got 16.8%"):
        list(ENGINE.feed(plan, longer))


def test_what_is_left_out_is_skipped_and_a_batch_without_an_image_is_passed_over(index: Path) -> None:
    empty(index, 0, 1, 2, 3, 4)
    keys = keys_of(index)
    with ENGINE.feed(plan_for(index, errors=SKIP), View()) as feed:
        got = [(batch.step, batch.keys, batch.num_skipped) for batch in feed]
    assert got == [
        (2, keys[5:6], 1),
        (3, keys[6:8], 0),
        (4, keys[8:10], 0),
        (5, keys[10:], 0),
    ]
    assert feed.counts == {"read": 7, "used": 7, "replaced": 0, "skipped": 5}


def test_a_position_stands_behind_the_batches_that_were_passed_over(index: Path) -> None:
    empty(index, 0, 1, 6, 7)
    plan = plan_for(index, errors=SKIP)
    with ENGINE.feed(plan, View()) as feed:
        batches = iter(feed)
        assert [next(batches).step, next(batches).step] == [1, 2]
        position = feed.position()
        rest = [(batch.step, batch.keys) for batch in batches]
    with ENGINE.feed(plan, View(), position) as again:
        assert [(batch.step, batch.keys) for batch in again] == rest
        assert [step for step, _ in rest] == [4, 5]
        assert again.counts["skipped"] == 2


def test_ranks_that_would_leave_images_out_are_refused(index: Path) -> None:
    with pytest.raises(PlanError, match=r"errors\.on_error: expected replace or raise with 2 ranks"):
        ENGINE.feed(plan_for(index, errors=SKIP), View(num_ranks=2))


@pytest.mark.parametrize("errors", [{}, SKIP], ids=["replace", "skip"])
def test_a_cache_changes_no_batch_where_files_and_masks_are_bad(
    index: Path, tmp_path: Path, errors: dict[str, Any]
) -> None:
    view = View(shuffle=True, augment=True, num_epochs=2)
    cached = plan_for(index, cache=tmp_path / "cache", errors=errors)
    with ENGINE.feed(cached, view) as feed:
        assert len(hashes_of(feed)) == NUM_PICTURES
    empty(index, 2)
    (tmp_path / "05-mask.png").unlink()
    (tmp_path / "07-mask.png").write_bytes(b"no picture")
    bare, warm = ENGINE.feed(plan_for(index, errors=errors), view), ENGINE.feed(cached, view)
    assert hashes_of(bare) == hashes_of(warm)
    assert bare.counts == warm.counts
    assert bare.quarantine == warm.quarantine
    assert {entry["key"] for entry in bare.quarantine} == {keys_of(index)[number] for number in (2, 5, 7)}
    assert warm.cache_counts["hits"] > 0


def test_limits_hold_for_what_is_cached_too(index: Path, tmp_path: Path) -> None:
    list(ENGINE.feed(plan_for(index, cache=tmp_path / "cache"), View()))
    errors = {**SKIP, "max_pixels": 50 * 60 - 1}
    feed = ENGINE.feed(plan_for(index, cache=tmp_path / "cache", errors=errors), View())
    assert list(feed) == []
    assert {entry["step"] for entry in feed.quarantine} == {"limit"}


def test_bad_files_spoil_neither_positions_nor_ranks(index: Path, tmp_path: Path) -> None:
    empty(index, 3, 8)
    plan = plan_for(index, cache=tmp_path / "cache", batch={"size": 4}, mix={"kind": "CutMix"})
    view = View(shuffle=True, augment=True, num_epochs=2)
    assert_resumes_everywhere(ENGINE, plan, view)
    assert_ranks_add_up(ENGINE, plan, view, num_ranks=2)
