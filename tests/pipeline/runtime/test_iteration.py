"""A feed and a batch behave as users of torch expect: length, one loop at a time, states, data loaders, unpacking."""

from __future__ import annotations

import copy
import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
import torch
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import LightwellError, PlanError, RequestError
from lightwell.pipeline.plan.plan import Mix, Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine, LocalFeed
from lightwell.testing import digest_batch
from patience import HANG_S
from torch.utils.data import DataLoader, IterableDataset
from torchdata.stateful_dataloader import StatefulDataLoader

VIEW = View(shuffle=True, augment=True, num_epochs=2)
NUM_BATCHES = 10


@pytest.fixture
def plan(index_path: Path) -> Plan:
    """24 pictures in batches of five."""
    policy = [A.Resize(32, 32), A.HorizontalFlip()]
    return Plan.model_validate({"index": index_path, "augment": policy, "batch": {"size": 5}})


@pytest.fixture
def feed(plan: Plan) -> Iterator[LocalFeed]:
    """A feed of ten batches in two epochs."""
    with LocalEngine(num_threads=2).feed(plan, VIEW) as opened:
        yield opened


def places(batches: list[Batch]) -> list[tuple[int, int]]:
    return [(batch.epoch, batch.step) for batch in batches]


ALL = [(epoch, step) for epoch in range(2) for step in range(5)]


def test_the_length_is_the_number_of_batches_and_stays(plan: Plan, feed: LocalFeed) -> None:
    assert len(feed) == feed.num_batches == NUM_BATCHES
    next(iter(feed))
    assert len(feed) == NUM_BATCHES
    with LocalEngine().feed(plan, VIEW, feed.position()) as later:
        assert len(later) == NUM_BATCHES - 1
        assert len(list(later)) == NUM_BATCHES - 1


def test_a_feed_names_its_classes(feed: LocalFeed) -> None:
    assert feed.classes == ("cat", "dog")


def test_a_loop_that_is_left_continues_with_the_next_batch(feed: LocalFeed) -> None:
    taken = []
    for batch in feed:
        taken.append(batch)
        if len(taken) == 3:
            break
    taken += list(feed)
    assert places(taken) == ALL


def test_a_feed_that_was_read_to_its_end_refuses_a_second_loop(feed: LocalFeed) -> None:
    list(feed)
    for _ in range(2):
        with pytest.raises(RequestError, match=r"read to its end.*View\(num_epochs=\.\.\.\), open it again"):
            iter(feed)


def test_a_feed_opened_at_its_end_yields_nothing_once(plan: Plan, feed: LocalFeed) -> None:
    list(feed)
    with LocalEngine().feed(plan, VIEW, feed.position()) as ended:
        assert len(ended) == 0
        assert list(ended) == []
        with pytest.raises(RequestError, match="read to its end"):
            iter(ended)


def test_a_closed_feed_refuses_to_be_read(plan: Plan) -> None:
    feed = LocalEngine().feed(plan, VIEW)
    feed.close()
    with pytest.raises(RequestError, match="got one that was closed; open the feed again"):
        list(feed)
    with LocalEngine().feed(plan, VIEW) as feed:
        next(iter(feed))
    with pytest.raises(RequestError, match="got one that was closed"):
        next(iter(feed))
    with pytest.raises(RequestError, match="got one that was closed"):
        feed.load_state_dict(feed.state_dict())


def test_two_loops_at_once_are_refused_and_the_first_goes_on(feed: LocalFeed) -> None:
    first = iter(feed)
    taken = [next(first)]
    with pytest.raises(
        RequestError, match="expected one loop at a time, got a second loop while one is open"
    ):
        next(iter(feed))
    with pytest.raises(RequestError, match="one loop at a time"):
        feed.load_state_dict(feed.state_dict())
    assert places([*taken, *first]) == ALL


def test_iterators_made_before_the_first_began_are_refused_too(feed: LocalFeed) -> None:
    first, second = iter(feed), iter(feed)
    next(first)
    with pytest.raises(RequestError, match="one loop at a time"):
        next(second)
    with pytest.raises(RequestError, match="one loop at a time"):
        next(zip(feed, feed, strict=True))


def test_of_many_threads_that_begin_a_loop_one_has_it(feed: LocalFeed) -> None:
    barrier, outcomes = threading.Barrier(8), []

    def read() -> None:
        barrier.wait()
        try:
            outcomes.append(len(list(feed)))
        except RequestError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)
    assert outcomes.count(NUM_BATCHES) == 1
    assert len(outcomes) == 8


def test_a_state_is_the_position_and_restores_any_feed_of_the_view(plan: Plan, feed: LocalFeed) -> None:
    expected, states = [], [feed.state_dict()]
    for batch in feed:
        expected.append(digest_batch(batch))
        states.append(json.loads(json.dumps(feed.state_dict())))
    assert states[3] == {**feed.position(), "epoch": 0, "step": 3}
    for done in (0, 4, NUM_BATCHES):
        with LocalEngine(num_threads=1).feed(plan, VIEW) as other:
            other.load_state_dict(states[done])
            assert len(other) == NUM_BATCHES - done
            assert [digest_batch(batch) for batch in other] == expected[done:]
            other.load_state_dict(states[7])  # a feed that was read has batches again
            assert [digest_batch(batch) for batch in other] == expected[7:]
            assert other.counts["read"] == sum(len(batch.rows) for batch in expected[7:])


def test_a_state_of_another_plan_or_view_is_refused_and_changes_nothing(plan: Plan, feed: LocalFeed) -> None:
    with LocalEngine().feed(plan.model_copy(update={"seed": 5}), VIEW) as other:
        foreign = other.state_dict()
    with LocalEngine().feed(plan, View(num_epochs=2)) as other:
        unlike = other.state_dict()
    next(iter(feed))
    for state in (foreign, unlike, {}, {**feed.state_dict(), "step": "1"}):
        with pytest.raises(PlanError, match="position: "):
            feed.load_state_dict(state)
    assert places(list(feed)) == ALL[1:]


def test_a_data_loader_passes_batches_on(plan: Plan, feed: LocalFeed) -> None:
    assert isinstance(feed, IterableDataset)
    with LocalEngine().feed(plan, VIEW) as reference:
        expected = [digest_batch(batch) for batch in reference]
    loader: DataLoader[Any] = DataLoader(feed, batch_size=None)  # type: ignore[arg-type]
    assert len(loader) == NUM_BATCHES
    assert [digest_batch(batch) for batch in loader] == expected
    with pytest.raises(RequestError, match="read to its end"):
        list(loader)


def refusal_of(loader: DataLoader[Any]) -> str:
    """Return why a loader cannot be read; keeps no traceback, which would hold its workers."""
    try:
        list(loader)
    except RequestError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("num_workers", "context"), [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_a_data_loader_with_workers_is_refused(feed: LocalFeed, num_workers: int, context: str) -> None:
    loader: DataLoader[Any] = DataLoader(
        feed,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=num_workers,
        multiprocessing_context=context,
    )
    assert "num_workers=0" in refusal_of(loader)


class _Wrapped(IterableDataset[Batch]):
    """How people put a feed into a data loader."""

    def __init__(self, feed: LocalFeed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[Batch]:
        yield from self._feed


def test_a_wrapped_feed_does_not_repeat_its_batches_in_workers(feed: LocalFeed) -> None:
    loader = DataLoader(_Wrapped(feed), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert "every worker would repeat all batches" in refusal_of(loader)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata's own use of torch
def test_a_stateful_data_loader_resumes_where_it_stood(plan: Plan, feed: LocalFeed) -> None:
    with LocalEngine().feed(plan, VIEW) as reference:
        expected = [digest_batch(batch) for batch in reference]
    loader = StatefulDataLoader(feed, batch_size=None)  # type: ignore[arg-type, var-annotated]
    batches = iter(loader)
    taken = [digest_batch(next(batches)) for _ in range(4)]
    state = json.loads(json.dumps(loader.state_dict()))
    with LocalEngine().feed(plan, VIEW) as again:
        resumed = StatefulDataLoader(again, batch_size=None)  # type: ignore[arg-type, var-annotated]
        resumed.load_state_dict(state)
        assert [*taken, *(digest_batch(batch) for batch in resumed)] == expected


def _read_elsewhere(feed: LocalFeed, outcome: Connection) -> None:
    try:
        outcome.send(len(list(feed)))
    except LightwellError as error:
        outcome.send(str(error))


def test_a_fork_may_not_read_a_feed(feed: LocalFeed) -> None:
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_read_elsewhere, args=(feed, there))
    process.start()
    assert here.poll(60)
    assert "expected the process that opened it" in here.recv()
    process.join(HANG_S)


@pytest.mark.parametrize("copy_it", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_feed_is_neither_pickled_nor_copied(feed: LocalFeed, copy_it: Any) -> None:
    with pytest.raises(RequestError, match=r"send plan, view and feed\.position\(\)"):
        copy_it(feed)


def test_a_batch_unpacks_to_images_and_labels(feed: LocalFeed) -> None:
    batch = next(iter(feed))
    images, labels = batch
    assert images is batch.images
    assert labels is batch.labels
    assert len(batch) == 5


def test_a_batch_moves_all_its_tensors(plan: Plan) -> None:
    mixed = plan.model_copy(update={"mix": Mix(kind="MixUp")})
    with LocalEngine().feed(mixed, View(augment=True)) as feed:
        batch = next(iter(feed))
    assert batch.mixed_labels is not None
    moved = batch.to("meta", non_blocking=True)
    devices = {
        name: getattr(moved, name).device.type
        for name in ("images", "labels", "mixed_labels", "mixed_weights")
    }
    assert set(devices.values()) == {"meta"}
    assert (moved.keys, moved.epoch, moved.step) == (batch.keys, batch.epoch, batch.step)
    assert batch.images.device.type == "cpu"
    assert batch.to(torch.device("cpu")).images is batch.images


@pytest.mark.gpu
def test_a_pinned_batch_goes_to_the_gpu(feed: LocalFeed) -> None:
    batch = next(iter(feed)).pin_memory()
    assert batch.images.is_pinned()
    assert torch.equal(batch.to("cuda", non_blocking=True).images.cpu(), batch.images)


def test_a_batch_shows_shapes_not_pixels(feed: LocalFeed) -> None:
    shown = repr(next(iter(feed)))
    assert shown == (
        "Batch(epoch=0, step=0, images=uint8[5, 32, 32, 3], labels=int64[5], replaced=0, padding=0)"
    )
