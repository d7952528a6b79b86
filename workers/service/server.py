"""The service itself: a named actor that has each batch made once and hands out references to it.

    workers (actors) -> object store -> consumers, which fetch a batch from there and copy it
       ^ numbers                          ^ references
       +------------- server -------------+    no pixels pass through it, except batches below 100 kB,
                                                 which Ray stores with their owner

``sharing`` decides which batches are made. A batch is a function of the plan and its number, so whatever is lost is made
again and is identical: with a worker process (its batches are made again, each in a process of its own, so that a batch that
kills its worker is found and named and no other is blamed), with a node and its object store (the consumer that cannot fetch
a batch reports it), with the server (Ray restarts it; consumers repeat their requests with their positions; the positions of
consumers that were gone by then are lost).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import LightwellError
from ...pipeline.runtime.open_view import OpenView
from ..ray.actor import BatchActor, result_or_error
from ..ray.actor_pool import PoolSpec
from ..ray.blocks import Block
from ..ray.crashing_batch import poison_error
from ..ray.engine import NUM_BATCHES, RayEngine
from ..ray.ray_errors import RETRIES, unwrap_ray_error
from .messages import BatchReply, Heartbeat, ServedView
from .sharing import SharingRules, StreamScheduler

if TYPE_CHECKING:
    import ray

    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View

TICK_S = 0.25
"""Interval at which the server checks for late consumers."""
RETRY_INTERVAL_S = 0.5
"""Pause between two attempts to reach a worker that died."""
STORE_SHARE = 4
"""Default ``window_bytes``: the smallest object store divided by this."""


class BuildWorker:
    """Actor that makes batches."""

    def __init__(self, *args: Any) -> None:
        self._build = BatchActor(*args)

    def ready(self) -> None:
        """Return once the actor is running."""

    def build(self, number: int) -> tuple[tuple[int, int], Block]:
        """Make a batch; return its bytes and the number of samples processed for it, and the batch as a second object."""
        block = self._build(range(number, number + 1))
        return (block.nbytes, block.result.num_made), block


@dataclass
class _FinishedBatch:
    block: tuple[ray.ObjectRef[Block], ...]
    error: LightwellError | None
    version: str


class Server:
    """Actor that serves one view of a plan. All its methods run on one event loop.

    Args:
        plan: the plan; its index is read on the server's node.
        view: the epochs that are served.
        engine: number and resources of the workers.
        rules: limits of the shared stream.
    """

    def __init__(self, plan: Plan, view: View, engine: RayEngine, rules: SharingRules) -> None:
        self._rules = rules
        self._opened = result_or_error(lambda: _ServerState.of(plan, view, engine, rules))
        self._finished: dict[int, _FinishedBatch] = {}
        self._pending: dict[tuple[str, int], asyncio.Future[BatchReply]] = {}
        self._busy: dict[Any, int] = {}
        self._num_deaths: dict[int, int] = {}
        self._made = bytearray()
        self._num_made = self._num_again = self._num_samples = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False

    async def describe(self) -> ServedView | LightwellError:
        """Return the served view, or the error that prevents it."""
        return self._opened if isinstance(self._opened, LightwellError) else self._ensure_started().served

    async def attach(self, heartbeat: Heartbeat) -> None:
        """Attach a consumer; requests of an earlier process of the same name get an empty reply."""
        state = self._ensure_started()
        for name, number in [key for key in self._pending if key[0] == heartbeat.name]:
            self._pending.pop((name, number)).set_result(BatchReply())
        state.scheduler.attach(
            heartbeat.name, heartbeat.session, heartbeat.number, heartbeat.position, time.monotonic()
        )
        self._advance()

    async def next(self, heartbeat: Heartbeat, number: int, lost_version: str = "") -> BatchReply:
        """Return a batch as soon as the consumer may receive it.

        Args:
            heartbeat: identity and position of the consumer.
            number: of the batch.
            lost_version: the version that could not be fetched.
        """
        state = self._ensure_started()
        if not self._record_heartbeat(heartbeat):
            return BatchReply()
        before = self._finished.get(number)
        if before is not None and before.version == lost_version:
            self._discard(number)
        state.scheduler.request(heartbeat.name, number)
        pending: asyncio.Future[BatchReply] = asyncio.get_running_loop().create_future()
        self._pending[heartbeat.name, number] = pending
        self._advance()
        return await pending

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Receive a consumer's heartbeat."""
        self._ensure_started()
        self._record_heartbeat(heartbeat)
        self._advance()

    async def leave(self, heartbeat: Heartbeat) -> None:
        """Detach a consumer; its position is remembered."""
        state = self._ensure_started()
        if self._record_heartbeat(heartbeat):
            state.scheduler.leave(heartbeat.name)
        self._advance()

    async def status(self) -> dict[str, Any]:
        """Return counters, limits and the state of every consumer, as JSON values."""
        state = self._ensure_started()
        scheduler, now_s = state.scheduler, time.monotonic()
        scheduler.advance_clock(now_s)
        slowest, holding = scheduler.slowest(), scheduler.blockers()
        consumers = [
            {
                "name": consumer.name,
                "state": consumer.state,
                "number": consumer.number,
                "waits": consumer.is_waiting,
                "waited_s": round(consumer.waited_s, 3),
                "kept_waiting_s": round(consumer.blocking_s, 3),
                "silent_s": round(now_s - consumer.last_heartbeat_s, 3),
                "position": dict(consumer.position),
            }
            for consumer in scheduler.consumers.values()
        ]
        return {
            "plan": state.served.fingerprint,
            "view": asdict(state.served.view),
            "num_batches": state.num_batches,
            "made": self._num_made,
            "made_again": self._num_again,
            "samples": self._num_samples,
            "making": sum(self._busy.values()),
            "kept": len(scheduler.finished),
            "kept_bytes": sum(scheduler.finished.values()),
            "window": state.rules.window,
            "window_bytes": state.rules.window_bytes,
            "makers": len(self._busy),
            "num_makers": state.num_workers,
            "missing": scheduler.num_missing,
            "slowest": None if slowest is None else slowest.name,
            "holding": [consumer.name for consumer in holding],
            "consumers": consumers,
        }

    def _ensure_started(self) -> _ServerState:
        """Start the workers and the clock, once; a restarted server does so at the first request."""
        assert not isinstance(self._opened, LightwellError), self._opened
        if not self._started:
            self._started = True
            self._made = bytearray(self._opened.num_batches)
            self._spawn(self._run_clock())
            for worker in self._opened.start_workers():
                self._spawn(self._await_ready(worker))
        return self._opened

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _run_clock(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._ensure_started().scheduler.advance_clock(time.monotonic())
            self._advance()

    async def _await_ready(self, worker: Any) -> None:
        """Wait until a worker is running, at the start or after its process died, and give it work."""
        import ray

        while True:
            try:
                await worker.ready.remote()
            except ray.exceptions.RayError:
                await asyncio.sleep(RETRY_INTERVAL_S)
            else:
                break
        self._busy[worker] = 0
        self._advance()

    def _record_heartbeat(self, heartbeat: Heartbeat) -> bool:
        scheduler = self._ensure_started().scheduler
        return scheduler.heartbeat(
            heartbeat.name, heartbeat.session, heartbeat.number, heartbeat.position, time.monotonic()
        )

    def _advance(self) -> None:
        """Deliver finished batches, drop those above the limits and start the next ones."""
        scheduler = self._ensure_started().scheduler
        for (name, number), pending in list(self._pending.items()):
            consumer = scheduler.consumers.get(name)
            if consumer is None or number not in consumer.requested:  # it has left, or moved on
                del self._pending[name, number]
                pending.set_result(BatchReply())
            elif consumer.is_alive and scheduler.may_receive(name, number):
                del self._pending[name, number]
                scheduler.mark_delivered(name, number)
                finished = self._finished[number]
                pending.set_result(BatchReply(finished.block, finished.version, finished.error))
                if finished.error is not None:
                    self._discard(number)
        for number in scheduler.trim():
            self._finished.pop(number, None)
        while (worker := self._idle_worker()) is not None and (
            wanted := scheduler.next_to_build()
        ) is not None:
            if wanted in self._num_deaths:
                self._spawn(self._build_isolated(wanted))
            else:
                self._busy[worker] += 1
                self._spawn(self._build(worker, wanted))

    def _idle_worker(self) -> Any:
        """Return the worker with the fewest batches in progress, if one has capacity."""
        worker = min(self._busy, key=self._busy.__getitem__, default=None)
        return None if worker is None or self._busy[worker] >= NUM_BATCHES else worker

    def _discard(self, number: int) -> None:
        self._finished.pop(number, None)
        self._ensure_started().scheduler.discard(number)

    async def _build(self, worker: Any, number: int) -> None:
        """Have a worker make a batch; if it dies, wait for its restart."""
        import ray

        try:
            await self._fetch(worker, number)
        except ray.exceptions.RayError:
            if self._busy.pop(worker, None) is not None:
                self._spawn(self._await_ready(worker))
            self._on_worker_died(number)
        else:
            if worker in self._busy:
                self._busy[worker] -= 1
        self._advance()

    async def _build_isolated(self, number: int) -> None:
        """Make a batch whose worker died, perhaps because of another batch, in a process that makes nothing else."""
        import ray

        worker = self._ensure_started().start_isolated_worker()
        try:
            await self._fetch(worker, number)
        except ray.exceptions.RayError:
            self._on_worker_died(number)
        finally:
            ray.kill(worker)
        self._advance()

    async def _fetch(self, worker: Any, number: int) -> None:
        """Have a worker make a batch and store it, or the error that it raised."""
        import ray

        summary_ref, block_ref = worker.build.options(num_returns=2).remote(number)
        try:
            num_bytes, num_samples = await summary_ref
        except ray.exceptions.RayTaskError as error:
            self._store(number, _FinishedBatch((), unwrap_ray_error(error), uuid.uuid4().hex), 0)
            return
        self._num_deaths.pop(number, None)
        self._num_made += 1
        self._num_again += self._made[number]
        self._made[number] = 1
        self._num_samples += num_samples
        self._store(number, _FinishedBatch((block_ref,), None, uuid.uuid4().hex), num_bytes)

    def _on_worker_died(self, number: int) -> None:
        """Schedule a batch again after its worker died, unless it has killed too many workers."""
        state = self._ensure_started()
        deaths = self._num_deaths[number] = self._num_deaths.get(number, 0) + 1
        if deaths > RETRIES:
            del self._num_deaths[number]
            error = poison_error(state.opened, number, deaths)
            self._store(number, _FinishedBatch((), error, uuid.uuid4().hex), 0)
        else:
            state.scheduler.discard(number)

    def _store(self, number: int, finished: _FinishedBatch, num_bytes: int) -> None:
        self._finished[number] = finished
        self._ensure_started().scheduler.mark_finished(number, num_bytes)


@dataclass(frozen=True)
class _ServerState:
    """State of a server whose view could be opened."""

    opened: OpenView
    served: ServedView
    num_batches: int
    rules: SharingRules
    scheduler: StreamScheduler
    pool: PoolSpec
    num_workers: int

    @classmethod
    def of(cls, plan: Plan, view: View, engine: RayEngine, rules: SharingRules) -> _ServerState:
        opened = OpenView.of(plan, view)
        pool = engine.batch_pool(opened)
        if not rules.window_bytes:
            rules = replace(rules, window_bytes=_smallest_store_bytes() // STORE_SHARE)
        served = ServedView(
            plan,
            view,
            opened.fingerprint,
            opened.index.fingerprint(),
            opened.schedule.num_steps,
            rules.heartbeat_timeout_s,
        )
        end = opened.schedule.num_batches
        scheduler = StreamScheduler(
            rules, end, ahead=NUM_BATCHES * pool.initial_workers + 2, batch_bytes=opened.largest_batch_bytes
        )
        return cls(opened, served, end, rules, scheduler, pool, pool.initial_workers)

    def start_workers(self) -> list[Any]:
        """Start the workers; they end with the server."""
        import ray

        remote = ray.remote(BuildWorker).options(
            num_cpus=self.pool.per_worker.cpus,
            num_gpus=self.pool.per_worker.gpus or None,
            max_restarts=-1,
            max_concurrency=NUM_BATCHES,
        )
        return [remote.remote(*self.pool.args) for _ in range(self.num_workers)]

    def start_isolated_worker(self) -> Any:
        """Start a worker for one batch. It reserves no CPUs, since the other workers hold them all."""
        import ray

        options = {"num_cpus": 0, "num_gpus": self.pool.per_worker.gpus or None, "max_restarts": 0}
        return ray.remote(BuildWorker).options(**options).remote(*self.pool.args)


def _smallest_store_bytes() -> int:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return int(min(node["Resources"].get("object_store_memory", 0) for node in nodes if node["Alive"]))
