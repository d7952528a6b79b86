"""Runs batch numbers through pools of actors; yields the results in order.

    numbers -> pool of actors, each with an open view -> object store -> (another pool ->) this process

The driver submits a bounded window of tasks, and more whenever a result is taken. All calls of a task are submitted at
once: Ray passes a result to the next actor as soon as it is there. A task that is lost, with a process, a node or an object
store, is done again, alone in its actors: a batch that kills its process is found in this way, and no other is blamed.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ...pipeline.errors import LightwellError, WorkerDiedError
from .actor_pool import ActorPool, PoolMember, PoolSpec
from .ray_errors import RETRIES, is_lost, lost_actor, unwrap_ray_error

TASKS_PER_SLOT = 4
"""Ratio of tasks that are in progress, queued or finished to those that all workers of the first pool run concurrently."""
PREFETCHED = 2
"""Finished results on other nodes that are fetched ahead of the consumer."""
CAPACITY_CHECK_S = 5.0
"""Interval at which the cluster's capacity is checked for more workers."""


@dataclass(frozen=True)
class Limits:
    """How much one run has in progress."""

    per_task: int = 1
    """Batches per task of the first pool."""
    max_batches: int | None = None
    """Maximum number of batches in progress or finished; None means that only the number of workers limits it."""


def stream(
    first: int,
    end: int,
    specs: Sequence[PoolSpec],
    limits: Limits,
    poison_error: Callable[[int, int], WorkerDiedError],
) -> Generator[Any, None, None]:
    """Process the numbers from ``first`` up to ``end`` through all pools; yields the results in order.

    Args:
        first: number of the first batch.
        end: number after the last batch.
        specs: the pools; the first one maps a range of numbers to a result, the others a result to the next.
        limits: how much is in progress.
        poison_error: the error for a number whose process died, and how many times it did.

    Raises:
        RunError: a worker failed, or died repeatedly.
        LightwellError: an error raised in a worker.
    """
    run = _Run(first, end, specs, limits, poison_error)
    thread = threading.Thread(target=run.work, name="lightwell-ray", daemon=True)
    thread.start()
    try:
        yield from run.results()
    finally:
        run.stop()
        thread.join()


@dataclass(eq=False)
class _Task:
    """Some consecutive numbers on their way through the pools."""

    numbers: range
    num_deaths: int = 0
    attempt: int = 0
    result: Any = None
    """Reference to the result of the last pool."""
    node: str = ""
    """Id of the node that has the finished result."""
    error: LightwellError | None = None
    """Raised instead of a result."""

    def __lt__(self, other: _Task) -> bool:
        return self.numbers.start < other.numbers.start


class _Run:
    """State of a stream.

    Everything but ``results`` and ``stop`` belongs to one thread, so that the workers go on, and are replaced, while the
    consumer is busy. The two threads exchange events and finished tasks through queues.
    """

    def __init__(
        self,
        first: int,
        end: int,
        specs: Sequence[PoolSpec],
        limits: Limits,
        poison_error: Callable[[int, int], WorkerDiedError],
    ) -> None:
        self._first = self._fresh = self._taken = first
        self._end = end
        self._specs = specs
        self._limits = limits
        self._poison_error = poison_error
        self._lost: list[_Task] = []
        """Heap of the tasks to be done again."""
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._finished: SimpleQueue[_Task | Exception] = SimpleQueue()
        self._stopped = False
        self._pools: list[ActorPool] = []

    def results(self) -> Iterator[Any]:
        """Yield the results, in order; called by the consumer's thread."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        tasks: dict[int, _Task] = {}
        number = self._first
        while number < self._end:
            if number not in tasks or not self._finished.empty():
                task = self._finished.get()
                if isinstance(task, Exception):
                    raise task
                tasks[task.numbers.start] = task
                continue
            _prefetch(tasks, number, here)
            task = tasks.pop(number)
            if task.error is not None:
                raise task.error
            try:
                result = [ray.get(task.result)]
            except ray.exceptions.RayError as error:
                self._events.put(partial(self._on_error, task, error))
                continue
            number = task.numbers.stop
            self._events.put(partial(self._on_taken, number))
            del task
            yield result.pop()

    def stop(self) -> None:
        """End the work; called by the consumer's thread."""
        self._events.put(partial(setattr, self, "_stopped", True))

    def work(self) -> None:
        """Keep the workers busy until all results are taken."""
        try:
            self._open_pools()
            checked_s = time.monotonic()
            while self._taken < self._end and not self._stopped:
                self._submit()
                self._handle_events()
                if time.monotonic() - checked_s >= CAPACITY_CHECK_S:
                    checked_s = time.monotonic()
                    for pool in self._pools:
                        pool.grow()
        except Exception as error:
            self._finished.put(error)
        finally:
            for pool in self._pools:
                pool.close(gracefully=self._taken == self._end)

    def _open_pools(self) -> None:
        some_gpus = any(spec.per_worker.gpus for spec in self._specs)
        for spec in self._specs:
            others = [other.group for other in self._specs if other is not spec]
            spread = not some_gpus or spec.per_worker.gpus > 0
            self._pools.append(ActorPool(spec, others, spread=spread, watch=self._watch))

    def _watch(self, ref: Any, react: Callable[[Future[Any]], None]) -> None:
        ref.future().add_done_callback(lambda answer: self._events.put(partial(react, answer)))

    def _handle_events(self) -> None:
        """Wait for an event, up to the next check of the capacity, and handle all that are there."""
        with suppress(Empty):
            self._events.get(timeout=CAPACITY_CHECK_S)()
            while True:
                self._events.get_nowait()()

    def _submit(self) -> None:
        """Submit lost tasks, each to actors without other work; then the next numbers of the window."""
        while self._lost:
            idle = [actor for pool in self._pools if (actor := pool.idle()) is not None]
            if len(idle) < len(self._pools):
                return
            self._start(heapq.heappop(self._lost), idle)
        slots = len(self._pools[0]) * self._specs[0].num_batches
        window = TASKS_PER_SLOT * slots * self._limits.per_task
        window = max(1, min(window, self._limits.max_batches or window))
        while self._fresh < min(self._end, self._taken + window):
            actors = [actor for pool in self._pools if (actor := pool.least_busy()) is not None]
            if len(actors) < len(self._pools):
                return
            numbers = range(self._fresh, min(self._end, self._fresh + self._limits.per_task))
            self._fresh = numbers.stop
            self._start(_Task(numbers), actors)

    def _start(self, task: _Task, actors: Sequence[PoolMember]) -> None:
        value: Any = task.numbers
        for pool, actor in zip(self._pools, actors, strict=True):
            done, value = actor.run.remote(value)
            actor.num_calls += 1
            actor.is_reserved = task.num_deaths > 0
            self._watch(done, partial(self._on_done, task, task.attempt, pool, actor))
        task.result = value

    def _on_done(
        self, task: _Task, attempt: int, pool: ActorPool, actor: PoolMember, answer: Future[Any]
    ) -> None:
        actor.num_calls -= 1
        actor.is_reserved = actor.is_reserved and actor.num_calls > 0
        error = answer.exception()
        if error is not None and lost_actor(error) == actor.actor_id:
            pool.replace_actor(actor)
        if task.attempt != attempt:
            return  # a pool that follows the lost one
        if error is not None:
            self._on_error(task, error)
        elif pool is self._pools[-1]:
            task.node = actor.node
            self._finished.put(task)

    def _on_taken(self, stop: int) -> None:
        self._taken = stop

    def _on_error(self, task: _Task, error: BaseException) -> None:
        """Repeat a task that is lost; fail at its turn for other errors, and for those that are lost repeatedly."""
        task.attempt += 1
        task.num_deaths += 1
        task.result = None
        if not is_lost(error) or task.num_deaths > RETRIES:
            task.error = (
                self._poison_error(task.numbers.start, task.num_deaths)
                if is_lost(error)
                else unwrap_ray_error(error)
            )
            task.error.__cause__ = error
            self._finished.put(task)
            return
        for number in task.numbers:
            heapq.heappush(self._lost, _Task(range(number, number + 1), task.num_deaths, task.attempt))


def _prefetch(tasks: Mapping[int, _Task], number: int, here: str) -> None:
    """Fetch the next results to this node if they are elsewhere."""
    import ray

    for _ in range(PREFETCHED):
        task = tasks.get(number)
        if task is None:
            return
        if task.result is not None and task.node != here:
            ray.wait([task.result], timeout=0, fetch_local=True)
        number = task.numbers.stop
