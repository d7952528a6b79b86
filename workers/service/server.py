"""The service itself: a named actor that has batches made once and hands out references to them.

    makers (actors) -> object store -> consumers, which fetch a batch from there and copy it out
       ^ numbers                          ^ references
       +------------- server -------------+    through which no pixel goes, but of batches below 100 kB,
                                                 which Ray keeps with their owner

It makes what ``sharing`` says. A batch is a function of the plan and its number, so whatever is lost is made again and is
the same: with a maker's process (its batches are made again, each by a process of its own, so that one that kills its maker
is found and named, and no other is blamed for it), with a node and what its store held (the consumer that
cannot fetch a batch says so), with the server (Ray starts it again; consumers ask again and say where they stand; the
positions of those that were gone by then are lost).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...pipeline.errors import LightwellError
from ...pipeline.runtime.open_view import OpenView
from ..ray.actor import BatchActor, result_or_error
from ..ray.blocks import counts_of
from ..ray.engine import NUM_BATCHES, RayEngine
from ..ray.poison import poison_error
from ..ray.stream import RETRIES, Stage, unwrap_ray_error
from .messages import Handed, Served, Stand
from .sharing import Sharing, SharingRules

if TYPE_CHECKING:
    import ray

    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View

TICK_S = 0.25
"""How often the server looks who is late."""
AGAIN_S = 0.5
"""Between two attempts to reach a maker that died."""
STORE_SHARE = 4
"""A window takes this part of the smallest object store, unless its bytes are given."""


class Maker:
    """An actor that makes batches."""

    def __init__(self, *args: Any) -> None:
        self._make = BatchActor(*args)

    def wait(self) -> None:
        """Answer once it is there."""

    def make(self, number: int) -> tuple[tuple[int, int], pa.Table]:
        """Make a batch; returns its bytes and the samples that were made for it, and, as another object, itself."""
        block = self._make(pa.table({"number": pa.array([number], pa.int64())}))
        return (block.nbytes, counts_of(block)["num_made"]), block


@dataclass
class _Finished:
    block: tuple[ray.ObjectRef[pa.Table], ...]
    error: LightwellError | None
    version: str


class Server:
    """The actor of one view of a plan. All its methods run on one event loop.

    Args:
        plan: what is made; its index is read where the server runs.
        view: the epochs that are served.
        engine: says how many makers there are and what each holds.
        rules: the bounds of what is shared.
    """

    def __init__(self, plan: Plan, view: View, engine: RayEngine, rules: SharingRules) -> None:
        self._rules = rules
        self._opened = result_or_error(lambda: _Opened.of(plan, view, engine, rules))
        self._finished: dict[int, _Finished] = {}
        self._waiting: dict[tuple[str, int], asyncio.Future[Handed]] = {}
        self._busy: dict[Any, int] = {}
        self._num_deaths: dict[int, int] = {}
        self._made = bytearray()
        self._num_made = self._num_again = self._num_samples = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._awake = False

    async def describe(self) -> Served | LightwellError:
        """Say what is served, or why nothing can be."""
        return self._opened if isinstance(self._opened, LightwellError) else self._wake().served

    async def attach(self, stand: Stand) -> None:
        """Let a consumer in; who had its name before is told so when it asks."""
        found = self._wake()
        for name, number in [key for key in self._waiting if key[0] == stand.name]:
            self._waiting.pop((name, number)).set_result(Handed())
        found.sharing.attach(stand.name, stand.session, stand.number, stand.position, time.monotonic())
        self._advance()

    async def next(self, stand: Stand, number: int, lost: str = "") -> Handed:
        """Hand out a batch as soon as the consumer may have it.

        Args:
            stand: who asks.
            number: of the batch.
            lost: the version that could not be fetched.
        """
        found = self._wake()
        if not self._hear(stand):
            return Handed()
        before = self._finished.get(number)
        if before is not None and before.version == lost:
            self._forget(number)
        found.sharing.ask(stand.name, number)
        waiting: asyncio.Future[Handed] = asyncio.get_running_loop().create_future()
        self._waiting[stand.name, number] = waiting
        self._advance()
        return await waiting

    async def beat(self, stand: Stand) -> None:
        """Hear that a consumer lives, and where it stands."""
        self._wake()
        self._hear(stand)
        self._advance()

    async def leave(self, stand: Stand) -> None:
        """Let a consumer go; where it stood stays known."""
        found = self._wake()
        if self._hear(stand):
            found.sharing.leave(stand.name)
        self._advance()

    async def status(self) -> dict[str, Any]:
        """Say what was made, what is kept and where everyone stands, as JSON holds it."""
        found = self._wake()
        sharing, now_s = found.sharing, time.monotonic()
        sharing.pass_time(now_s)
        slowest, holding = sharing.slowest(), sharing.holding()
        consumers = [
            {
                "name": one.name,
                "state": one.state,
                "number": one.number,
                "waits": one.waits,
                "waited_s": round(one.waited_s, 3),
                "kept_waiting_s": round(one.kept_waiting_s, 3),
                "silent_s": round(now_s - one.heard_s, 3),
                "position": dict(one.position),
            }
            for one in sharing.consumers.values()
        ]
        return {
            "plan": found.served.fingerprint,
            "view": asdict(found.served.view),
            "num_batches": found.num_batches,
            "made": self._num_made,
            "made_again": self._num_again,
            "samples": self._num_samples,
            "making": sum(self._busy.values()),
            "kept": len(sharing.kept),
            "kept_bytes": sum(sharing.kept.values()),
            "window": found.rules.window,
            "window_bytes": found.rules.window_bytes,
            "makers": len(self._busy),
            "num_makers": found.num_makers,
            "missing": sharing.num_missing,
            "slowest": None if slowest is None else slowest.name,
            "holding": [one.name for one in holding],
            "consumers": consumers,
        }

    def _wake(self) -> _Opened:
        """Start the makers and the clock, once; a restarted server does so when it is first asked."""
        assert not isinstance(self._opened, LightwellError), self._opened
        if not self._awake:
            self._awake = True
            self._made = bytearray(self._opened.num_batches)
            self._start(self._keep_time())
            for maker in self._opened.hire():
                self._start(self._greet(maker))
        return self._opened

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._wake().sharing.pass_time(time.monotonic())
            self._advance()

    async def _greet(self, maker: Any) -> None:
        """Wait until a maker is there, for the first time or after its process died, and give it work."""
        import ray

        while True:
            try:
                await maker.wait.remote()
            except ray.exceptions.RayError:
                await asyncio.sleep(AGAIN_S)
            else:
                break
        self._busy[maker] = 0
        self._advance()

    def _hear(self, stand: Stand) -> bool:
        sharing = self._wake().sharing
        return sharing.stand(stand.name, stand.session, stand.number, stand.position, time.monotonic())

    def _advance(self) -> None:
        """Forget what has no room, hand out what is there, make what is wanted."""
        sharing = self._wake().sharing
        for (name, number), waiting in list(self._waiting.items()):
            one = sharing.consumers.get(name)
            if one is None or number not in one.asked:  # it has left, or stands further on
                del self._waiting[name, number]
                waiting.set_result(Handed())
            elif one.lives and sharing.may_have(name, number):
                del self._waiting[name, number]
                sharing.hand(name, number)
                found = self._finished[number]
                waiting.set_result(Handed(found.block, found.version, found.error))
                if found.error is not None:
                    self._forget(number)
        for number in sharing.surplus():
            self._finished.pop(number, None)
        while (maker := self._free()) is not None and (wanted := sharing.begin()) is not None:
            if wanted in self._num_deaths:
                self._start(self._make_alone(wanted))
            else:
                self._busy[maker] += 1
                self._start(self._make(maker, wanted))

    def _free(self) -> Any:
        """Return the maker with the least to do, if one has room."""
        maker = min(self._busy, key=self._busy.__getitem__, default=None)
        return None if maker is None or self._busy[maker] >= NUM_BATCHES else maker

    def _forget(self, number: int) -> None:
        self._finished.pop(number, None)
        self._wake().sharing.drop(number)

    async def _make(self, maker: Any, number: int) -> None:
        """Have a maker make a batch; who dies meanwhile is waited for."""
        import ray

        try:
            await self._fetch(maker, number)
        except ray.exceptions.RayError:
            if self._busy.pop(maker, None) is not None:
                self._start(self._greet(maker))
            self._mourn(number)
        else:
            if maker in self._busy:
                self._busy[maker] -= 1
        self._advance()

    async def _make_alone(self, number: int) -> None:
        """Have a batch made whose maker died, perhaps over another one, by a process that makes nothing else."""
        import ray

        maker = self._wake().hire_one()
        try:
            await self._fetch(maker, number)
        except ray.exceptions.RayError:
            self._mourn(number)
        finally:
            ray.kill(maker)
        self._advance()

    async def _fetch(self, maker: Any, number: int) -> None:
        """Have a batch made and keep it, or what making it raised on purpose."""
        import ray

        noted, block = maker.make.options(num_returns=2).remote(number)
        try:
            num_bytes, num_samples = await noted
        except ray.exceptions.RayTaskError as error:
            self._finish(number, _Finished((), unwrap_ray_error(error), uuid.uuid4().hex), 0)
            return
        self._num_deaths.pop(number, None)
        self._num_made += 1
        self._num_again += self._made[number]
        self._made[number] = 1
        self._num_samples += num_samples
        self._finish(number, _Finished((block,), None, uuid.uuid4().hex), num_bytes)

    def _mourn(self, number: int) -> None:
        """Have a batch made again, unless it killed too many."""
        found = self._wake()
        deaths = self._num_deaths[number] = self._num_deaths.get(number, 0) + 1
        if deaths > RETRIES:
            del self._num_deaths[number]
            error = poison_error(found.opened, number, deaths)
            self._finish(number, _Finished((), error, uuid.uuid4().hex), 0)
        else:
            found.sharing.drop(number)

    def _finish(self, number: int, finished: _Finished, num_bytes: int) -> None:
        self._finished[number] = finished
        self._wake().sharing.keep(number, num_bytes)


@dataclass(frozen=True)
class _Opened:
    """What a server holds open from its start."""

    opened: OpenView
    served: Served
    num_batches: int
    rules: SharingRules
    sharing: Sharing
    stage: Stage
    num_makers: int

    @classmethod
    def of(cls, plan: Plan, view: View, engine: RayEngine, rules: SharingRules) -> _Opened:
        opened = OpenView.of(plan, view)
        stage = engine.batch_stage(opened)
        if not rules.window_bytes:
            rules = replace(rules, window_bytes=_smallest_store_bytes() // STORE_SHARE)
        served = Served(
            plan,
            view,
            opened.fingerprint,
            opened.index.fingerprint(),
            opened.schedule.num_steps,
            rules.silent_s,
        )
        end = opened.schedule.num_batches
        sharing = Sharing(
            rules, end, ahead=NUM_BATCHES * stage.initial_workers + 2, batch_bytes=opened.largest_batch_bytes
        )
        return cls(opened, served, end, rules, sharing, stage, stage.initial_workers)

    def hire(self) -> list[Any]:
        """Start the makers; they end with the server."""
        import ray

        remote = ray.remote(Maker).options(
            num_cpus=self.stage.per_worker.cpus,
            num_gpus=self.stage.per_worker.gpus or None,
            max_restarts=-1,
            max_concurrency=NUM_BATCHES,
        )
        return [remote.remote(*self.stage.args) for _ in range(self.num_makers)]

    def hire_one(self) -> Any:
        """Start a maker for one batch. It holds no CPUs: those that there are others have."""
        import ray

        options = {"num_cpus": 0, "num_gpus": self.stage.per_worker.gpus or None, "max_restarts": 0}
        return ray.remote(Maker).options(**options).remote(*self.stage.args)


def _smallest_store_bytes() -> int:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return int(min(node["Resources"].get("object_store_memory", 0) for node in nodes if node["Alive"]))
