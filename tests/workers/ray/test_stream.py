"""A stream yields results in order, keeps a bounded number in progress, and names what kills its process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from clusters import wait_until
from lightwell.pipeline.errors import RunError, WorkerDiedError
from lightwell.workers.ray.actor_pool import PoolSpec
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.stream import TASKS_PER_SLOT, Limits, stream
from patience import HANG_S
from stage_actors import Negating, Recording, Unstartable

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def pool(make: Any, *args: object, num_workers: int = 1) -> PoolSpec:
    return PoolSpec(make, args, Resources(0.5), num_workers, num_workers, 2)


def run(pools: Sequence[PoolSpec], first: int, end: int, limits: Limits | None = None) -> Iterator[Any]:
    def named(number: int, num_deaths: int) -> WorkerDiedError:
        return WorkerDiedError(f"number {number} died {num_deaths} times")

    return stream(first, end, pools, limits or Limits(), named)


def flat(results: Iterator[list[int]]) -> Iterator[int]:
    return (number for some in results for number in some)


def noted(folder: Path) -> set[int]:
    return {int(path.name) for path in folder.iterdir() if path.name.isdigit()}


@pytest.mark.parametrize("per_task", [1, 3])
def test_results_of_two_stages_come_in_order_and_the_actors_are_closed(tmp_path: Path, per_task: int) -> None:
    pools = [pool(Recording, tmp_path, num_workers=2), pool(Negating, num_workers=2)]
    assert list(flat(run(pools, 2, 25, Limits(per_task)))) == [-number for number in range(2, 25)]
    worked = {(tmp_path / f"{number}").read_text() for number in range(2, 25)}
    assert worked <= {path.read_text() for path in tmp_path.glob("closed-*")}


def test_workers_fill_the_window_while_the_consumer_is_busy_and_no_more(tmp_path: Path) -> None:
    window = TASKS_PER_SLOT * 2
    with closing(run([pool(Recording, tmp_path)], 0, 100)) as results:  # type: ignore[type-var]
        assert next(results) == [0]
        wait_until(lambda: len(noted(tmp_path)) >= 1 + window, HANG_S, "a full window")
        time.sleep(0.5)
        assert noted(tmp_path) == set(range(1 + window))


def test_a_limit_of_batches_bounds_what_is_in_progress(tmp_path: Path) -> None:
    limits = Limits(max_batches=2)
    with closing(run([pool(Recording, tmp_path)], 0, 100, limits)) as results:  # type: ignore[type-var]
        for number in range(4):
            assert next(results) == [number]
            assert max(noted(tmp_path)) <= number + 2


def test_a_number_that_kills_its_process_is_named_after_all_before_it(tmp_path: Path) -> None:
    """Also if it is one of several in a task."""
    done: list[int] = []
    with pytest.raises(WorkerDiedError, match="number 6 died 4 times"):
        done.extend(flat(run([pool(Recording, tmp_path, 6, num_workers=2)], 0, 100, Limits(4))))
    assert done == list(range(6))


def test_an_error_of_an_actor_ends_the_run_at_its_turn(tmp_path: Path) -> None:
    done: list[int] = []
    with pytest.raises(RunError, match="a worker failed: KeyError: 7"):
        done.extend(flat(run([pool(Recording, tmp_path, -1, 7, num_workers=2)], 0, 100)))
    assert done == list(range(7))


def test_actors_that_never_start_end_the_run() -> None:
    with pytest.raises(WorkerDiedError, match="died 4 times while it started"):
        next(run([pool(Unstartable)], 0, 100))
