"""Runs batch numbers through pools of actors; yields the results in order.

    numbers -> pool of actors, each with an open view -> object store -> (another pool ->) this process

The driver submits a bounded window of tasks, and more whenever it takes a result. All stages of a task are submitted at
once: Ray passes a result to the next actor as soon as it is there. A task that is lost, with a process, a node or an object
store, is done again, alone in its actors: a batch that kills its process is found in this way, and no other is blamed.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from ...pipeline.errors import LightwellError, WorkerDiedError
from .actor_pool import ActorPool, PooledActor, Stage
from .ray_errors import RETRIES, first_line, is_lost, lost_actor, unwrap_ray_error

TASKS_PER_SLOT = 4
"""Ratio of tasks that are in progress, queued or finished to those that all workers of the first stage run concurrently."""
PREFETCHED = 2
"""Finished results on other nodes that are fetched ahead of the consumer."""
CAPACITY_CHECK_S = 5.0
"""Interval at which the cluster's capacity is checked for more workers."""


@dataclass(frozen=True)
class Limits:
    """How much one run has in progress."""

    per_task: int = 1
    """Batches per task of the first stage."""
    max_batches: int | None = None
    """Maximum number of batches in progress or finished; None means that only the number of workers limits it."""


def stream(
    first: int,
    end: int,
    stages: Sequence[Stage],
    limits: Limits,
    poison_error: Callable[[int, int], WorkerDiedError],
) -> Generator[Any, None, None]:
    """Process the numbers from ``first`` up to ``end`` through all stages; yields the results in order.

    Args:
        first: number of the first batch.
        end: number after the last batch.
        stages: the stages; the first one maps a range of numbers to a result, the others a result to the next.
        limits: how much is in progress.
        poison_error: the error for a number whose process died, and how many times it did.

    Raises:
        RunError: a worker failed, or died repeatedly.
        LightwellError: an error raised in a worker.
    """
    run = _Run(first, end, stages, limits, poison_error)
    try:
        yield from run.results()
    finally:
        run.close()


@dataclass(eq=False)
class _Task:
    """Some consecutive numbers on their way through the stages."""

    numbers: range
    num_deaths: int = 0
    attempt: int = 0
    result: Any = None
    """Reference to the result of the last stage."""
    node: str = ""
    """Id of the node that has the finished result."""
    error: LightwellError | None = None
    """Raised instead of a result."""

    def __lt__(self, other: _Task) -> bool:
        return self.numbers.start < other.numbers.start


class _Run:
    """State of a stream. Events of Ray arrive in a queue and are handled in the consumer's thread."""

    def __init__(
        self,
        first: int,
        end: int,
        stages: Sequence[Stage],
        limits: Limits,
        poison_error: Callable[[int, int], WorkerDiedError],
    ) -> None:
        import ray

        self._next = self._fresh = first
        self._end = end
        self._limits = limits
        self._poison_error = poison_error
        self._tasks: dict[int, _Task] = {}
        """Tasks that are submitted and not yet yielded, by their first number."""
        self._again: list[_Task] = []
        """Heap of the tasks that were lost."""
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._checked_s = time.monotonic()
        self._here: str = ray.get_runtime_context().get_node_id()
        some_gpus = any(stage.per_worker.gpus for stage in stages)
        self._pools = [
            ActorPool(
                stage,
                [other.group for other in stages if other is not stage],
                spread=not some_gpus or stage.per_worker.gpus > 0,
                watch=self._watch,
            )
            for stage in stages
        ]

    def results(self) -> Iterator[Any]:
        """Yield the results, in order."""
        while self._next < self._end:
            self._handle_events()
            self._submit()
            self._prefetch()
            task = self._tasks.get(self._next)
            if task is None or not (task.node or task.error):
                self._handle_events(wait_s=CAPACITY_CHECK_S)
            elif task.error is not None:
                raise task.error from task.error.__cause__
            elif (result := self._fetch(task)) is not None:
                del self._tasks[self._next]
                self._next = task.numbers.stop
                del task
                yield result.pop()

    def close(self) -> None:
        """End the actors; those of a run that came to its end publish what they hold."""
        for pool in self._pools:
            pool.close(gracefully=self._next == self._end)

    def _watch(self, ref: Any, react: Callable[[Future[Any]], None]) -> None:
        ref.future().add_done_callback(lambda answer: self._events.put(partial(react, answer)))

    def _handle_events(self, wait_s: float = 0.0) -> None:
        """Handle all events that are there; wait for one if ``wait_s`` is given."""
        try:
            while True:
                self._events.get(block=wait_s > 0, timeout=wait_s or None)()
                wait_s = 0.0
        except Empty:
            pass
        if time.monotonic() - self._checked_s >= CAPACITY_CHECK_S:
            self._checked_s = time.monotonic()
            for pool in self._pools:
                pool.grow()

    def _submit(self) -> None:
        """Submit what was lost, each task to actors that do nothing else; then the next numbers of the window."""
        while self._again:
            alone = [actor for pool in self._pools if (actor := pool.idle()) is not None]
            if len(alone) < len(self._pools):
                return
            self._start(heapq.heappop(self._again), alone)
        slots = len(self._pools[0]) * self._pools[0].stage.num_batches
        window = TASKS_PER_SLOT * slots * self._limits.per_task
        window = max(1, min(window, self._limits.max_batches or window))
        while self._fresh < min(self._end, self._next + window):
            actors = [actor for pool in self._pools if (actor := pool.least_busy()) is not None]
            if len(actors) < len(self._pools):
                return
            stop = min(self._end, self._fresh + self._limits.per_task)
            task = self._tasks[self._fresh] = _Task(range(self._fresh, stop))
            self._fresh = stop
            self._start(task, actors)

    def _start(self, task: _Task, actors: Sequence[PooledActor]) -> None:
        value: Any = task.numbers
        for pool, actor in zip(self._pools, actors, strict=True):
            done, value = actor.run.remote(value)
            actor.num_calls += 1
            actor.is_reserved = task.num_deaths > 0
            self._watch(done, partial(self._on_done, task, task.attempt, pool, actor))
        task.result = value

    def _on_done(
        self, task: _Task, attempt: int, pool: ActorPool, actor: PooledActor, answer: Future[Any]
    ) -> None:
        actor.num_calls -= 1
        actor.is_reserved = actor.is_reserved and actor.num_calls > 0
        error = answer.exception()
        if error is not None and lost_actor(error) == actor.actor_id:
            pool.replace(actor)
        if task.attempt != attempt:
            return  # a stage that followed the lost one
        if error is not None:
            self._on_error(task, error)
        elif pool is self._pools[-1]:
            task.node = actor.node

    def _on_error(self, task: _Task, error: BaseException) -> None:
        if not is_lost(error):
            task.error = unwrap_ray_error(error)
            task.error.__cause__ = error
            return
        task.attempt += 1
        task.num_deaths += 1
        task.result, task.node = None, ""
        if task.num_deaths > RETRIES:
            task.error = self._poison_error(task.numbers.start, task.num_deaths)
            task.error.add_note(first_line(error))
            return
        for number in task.numbers[1:]:
            self._tasks[number] = _Task(range(number, number + 1), task.num_deaths)
            heapq.heappush(self._again, self._tasks[number])
        task.numbers = task.numbers[:1]
        heapq.heappush(self._again, task)

    def _prefetch(self) -> None:
        """Fetch the next results to this node if they are elsewhere."""
        import ray

        number = self._next
        for _ in range(PREFETCHED):
            task = self._tasks.get(number)
            if task is None:
                return
            if task.node and task.node != self._here:
                ray.wait([task.result], timeout=0, fetch_local=True)
            number = task.numbers.stop

    def _fetch(self, task: _Task) -> list[Any] | None:
        """Return a list with the result only; None if it is lost and has to be made again."""
        import ray

        try:
            return [ray.get(task.result)]
        except ray.exceptions.RayError as error:
            self._on_error(task, error)
            return None
