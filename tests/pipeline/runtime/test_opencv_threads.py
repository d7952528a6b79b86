"""OpenCV's threads are the user's again once feeds have ended, in whatever order they end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from lightwell.pipeline.compiler.program import Program
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine, LocalFeed
from lightwell.pipeline.runtime.opencv_threads import SingleThreadedOpenCV
from lightwell.pipeline.tools.costs import measure_costs


@pytest.fixture(autouse=True)
def users_threads() -> Iterator[int]:
    """Let the user have three threads, as few machines have by themselves."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    yield 3
    cv2.setNumThreads(before)


def open_feed(index_path: Path) -> LocalFeed:
    plan = Plan.model_validate(
        {"index": index_path, "preprocess": [{"Resize": {"height": 8, "width": 8}}], "batch": {"size": 4}}
    )
    return LocalEngine(num_threads=2).feed(plan, View())


def test_a_feed_takes_one_thread_while_it_is_read_and_gives_them_back(index_path: Path) -> None:
    with open_feed(index_path) as feed:
        batches = iter(feed)
        next(batches)
        assert cv2.getNumThreads() == 1
        del batches  # as leaving a loop does
    assert cv2.getNumThreads() == 3


def test_a_feed_that_is_read_to_its_end_gives_them_back(index_path: Path) -> None:
    assert len(list(open_feed(index_path))) == 6
    assert cv2.getNumThreads() == 3


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_feeds_the_last_to_close_gives_them_back(first: int, index_path: Path) -> None:
    feeds = [open_feed(index_path), open_feed(index_path)]
    iterators = [iter(feed) for feed in feeds]
    for iterator in iterators:
        next(iterator)
    feeds[first].close()
    iterators[first].close()  # type: ignore[attr-defined]
    assert cv2.getNumThreads() == 1
    feeds[1 - first].close()
    iterators[1 - first].close()  # type: ignore[attr-defined]
    assert cv2.getNumThreads() == 3


def test_a_number_that_the_user_sets_meanwhile_stays() -> None:
    with SingleThreadedOpenCV():
        cv2.setNumThreads(2)
    assert cv2.getNumThreads() == 2


def test_letting_go_twice_counts_once() -> None:
    one, other = SingleThreadedOpenCV(), SingleThreadedOpenCV()
    one.release()
    one.release()
    assert cv2.getNumThreads() == 1
    other.release()
    assert cv2.getNumThreads() == 3


def test_measuring_costs_beside_an_open_feed_leaves_the_feed_its_one_thread(index_path: Path) -> None:
    with open_feed(index_path) as feed:
        batches = iter(feed)
        next(batches)
        plan = Plan.model_validate({"index": index_path})
        assert measure_costs(Program.compile(plan), plan.load_index()) is not None
        assert cv2.getNumThreads() == 1
        del batches  # as leaving a loop does
    assert cv2.getNumThreads() == 3
