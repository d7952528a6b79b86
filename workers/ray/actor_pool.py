"""Pools of Ray actors: actors that die are replaced, and more are added when nodes join.

A pool never restarts an actor: it starts another one, on any node that has room. Actors receive calls once they are open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import WorkerDiedError
from .cluster import Resources, WorkerGroup, list_nodes, max_workers
from .ray_errors import RETRIES, first_line, is_lost, unwrap_ray_error

if TYPE_CHECKING:
    from .actor import PoolActor

CALLS_PER_SLOT = 2
"""Ratio of the calls that an actor has received to those that it runs concurrently."""
CLOSE_S = 10.0
"""Timeout for actors to publish what they hold, at the end of a run."""

Watch = Callable[[Any, Callable[["Future[Any]"], None]], None]
"""Calls a function in the driver's thread once a reference has a value."""


@dataclass(frozen=True)
class PoolSpec:
    """The actors of a pool: their class, resources and number."""

    actor_class: type[PoolActor]
    args: Sequence[Any]
    per_worker: Resources
    num_workers: int
    """0 means as many as fit, now and later."""
    initial_workers: int
    """Workers to start with."""
    num_batches: int
    """Batches that one worker processes concurrently."""

    @property
    def group(self) -> WorkerGroup:
        """The workers that it starts with."""
        return WorkerGroup(self.initial_workers, self.per_worker)


@dataclass(eq=False)
class PoolMember:
    """An actor of a pool, with the calls it has received and not answered."""

    handle: Any
    node: str = ""
    """Id of its node; empty until it is open."""
    num_calls: int = 0
    is_reserved: bool = False
    """Whether it receives no more calls until the current one is answered."""
    run: Any = field(init=False)

    def __post_init__(self) -> None:
        self.run = self.handle.run.options(num_returns=2)

    @property
    def actor_id(self) -> str:
        """Ray's id of the actor."""
        found: str = self.handle._actor_id.hex()
        return found


class ActorPool:
    """Actors of one kind.

    Args:
        spec: the actors.
        others: workers of the other pools.
        spread: whether to use all nodes alike; otherwise nodes without GPUs are preferred.
        watch: how the pool learns that an actor is open.
    """

    def __init__(self, spec: PoolSpec, others: Sequence[WorkerGroup], *, spread: bool, watch: Watch) -> None:
        import ray

        self.spec = spec
        self._others = others
        self._watch = watch
        self._failed_starts = 0
        self._remote = ray.remote(spec.actor_class).options(
            num_cpus=spec.per_worker.cpus,
            num_gpus=spec.per_worker.gpus or None,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=spec.num_batches + 1,  # and the call of ``live``
            scheduling_strategy="SPREAD" if spread else "DEFAULT",
        )
        self._actors: list[PoolMember] = []
        for _ in range(spec.initial_workers):
            self._start()

    def __len__(self) -> int:
        return len(self._actors)

    def least_busy(self) -> PoolMember | None:
        """Return the open actor with the fewest calls; None if all have enough."""
        most = CALLS_PER_SLOT * self.spec.num_batches
        free = [one for one in self._actors if one.node and not one.is_reserved and one.num_calls < most]
        return min(free, key=lambda one: one.num_calls, default=None)

    def idle(self) -> PoolMember | None:
        """Return an open actor without calls, if there is one."""
        return next((one for one in self._actors if one.node and not one.num_calls), None)

    def replace_actor(self, actor: PoolMember) -> None:
        """Start another actor instead of one that failed; calls of the failed one may still be answered."""
        import ray

        if actor in self._actors:
            self._actors.remove(actor)
            ray.kill(actor.handle)
            self._start()

    def grow(self) -> None:
        """Start more actors if there is room for them since nodes joined."""
        if not self.spec.num_workers:
            room = max_workers(self.spec.per_worker, self._others, list_nodes())
            for _ in range(room - len(self._actors)):
                self._start()

    def close(self, *, gracefully: bool) -> None:
        """End the actors, ``gracefully`` after they have published what they hold."""
        import ray

        if not ray.is_initialized():
            return
        if gracefully:
            closing = [one.handle.close.remote() for one in self._actors if one.node]
            ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S) if closing else None
        for one in self._actors:
            ray.kill(one.handle)
        self._actors.clear()

    def _start(self) -> None:
        actor = PoolMember(self._remote.remote(*self.spec.args))
        self._actors.append(actor)
        self._watch(actor.handle.node_id.remote(), partial(self._on_open, actor))

    def _on_open(self, actor: PoolMember, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is None:
            actor.node, self._failed_starts = answer.result(), 0
            self._watch(actor.handle.live.remote(), lambda _: self.replace_actor(actor))
            return
        if not is_lost(error):
            raise unwrap_ray_error(error) from error
        self._failed_starts += 1
        if self._failed_starts > RETRIES:
            raise WorkerDiedError(
                f"a worker: expected a running process, got one that died {self._failed_starts} times while it started "
                f"({first_line(error)}); check Ray's logs for the cause, such as out of memory (more CPUs per worker mean "
                "fewer workers)"
            ) from error
        self.replace_actor(actor)
