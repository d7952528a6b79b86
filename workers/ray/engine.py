"""The Ray engine: batches made by actors of a cluster, the same as the local engine's, in the same order.

``colocated``: a batch job runs in the actors that make its batches; keys and records travel, pixels do not.
``separate``: some actors make batches, others, which may hold a GPU, work on them; a feed's batches come here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.compiler.routing import Backend
from ...pipeline.config.argument_checks import check_choice, check_count, check_is, check_text
from ...pipeline.errors import PlanError, WorkerDiedError
from ...pipeline.jobs.contracts import BatchRecords
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.runtime.batch_builder import check_backend
from ...pipeline.runtime.feed_state import FeedState
from ...pipeline.runtime.open_view import OpenView
from .actor import Assignment, JobActor, MakeActor, MakeAndWorkActor
from .blocks import from_block
from .cluster import Asked, Crew, NodeRoom, Resources, check_room, connect, rooms
from .poison import find_poison, let_go, poison_error
from .stats_aggregator import TalliedFeed, Tally
from .stream import RETRIES, SENT, Stage, stream

if TYPE_CHECKING:
    from ...pipeline.jobs.contracts import BatchJob

T = TypeVar("T")
Placement = Literal["colocated", "separate"]
NUM_BATCHES = 2
"""Batches that one worker makes at a time: the next is decoded while one is put together and handed over."""

BATCHES_PER_TASK = 4
"""Batches of a colocated job that one task makes and works on: a task costs this process some milliseconds."""
AHEAD = 4
"""Finished batches may be so many times those under way."""
TASKS_PER_WORKER = 8
"""That there have to be at least before batches share a task, so that workers end together."""


@dataclass(frozen=True)
class RayEngine:
    """Runs plans and batch jobs on a Ray cluster."""

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Actors that make batches; 0 takes as many as there is room for, those too that find room later."""
    each: Resources | Asked = field(default_factory=Asked)
    """What one worker holds, over what its plan says; it has as many threads as CPUs. GPUs go to the job: with ``separate`` to workers of its own."""
    placement: Placement = "colocated"
    memory_bytes: int = 0
    """What may be in flight in one worker; 0 means a quarter of its machine, shared by the workers that fit there."""
    backend: Backend | None = None
    """What works on pixels; None takes DALI for plans on a GPU, OpenCV for plans on the CPU."""
    num_job_workers: int = 1
    """Actors that a job has for itself with ``separate``."""

    def __post_init__(self) -> None:
        check_text("address", self.address)
        check_count("num_workers", self.num_workers)
        check_is("each", self.each, Resources, Asked)
        check_choice("placement", self.placement, get_args(Placement))
        check_count("memory_bytes", self.memory_bytes, most=2**62)
        check_count("num_job_workers", self.num_job_workers)
        if self.backend is not None:
            check_choice("backend", self.backend, get_args(Backend))
        if self.num_job_workers < 1 or (self.num_job_workers > 1 and self.placement != "separate"):
            raise PlanError(
                "ray: expected one or more job workers with the placement separate, and no number of them with colocated, "
                f"where the job runs in every worker; got {self.num_job_workers} with {self.placement}; "
                "add --placement separate, or leave --job-workers out"
            )

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> RayFeed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: the plan or the view cannot be right, the position is of another, or the cluster can never
                hold the workers.
            SourceError: the index cannot be used or has no such split.
            RunError: there is no cluster at the address.
        """
        opened = self._open(plan, view)
        feed_state = FeedState(opened, position)
        connect(self.address)
        return RayFeed(opened, feed_state, [self.makers(opened)])

    def makers(self, opened: OpenView) -> Stage:
        """Say which workers make the batches of a view, on the cluster that this process belongs to.

        Raises:
            PlanError: the cluster can never hold them.
        """
        on_gpu = opened.plan.device == "gpu"
        each = self.each.over(opened.plan.resources)
        crew = self._sized(self._crew(each if on_gpu else replace(each, gpus=0)), [])
        return _stage(MakeActor, (self._assignment(opened, crew),), crew, self.num_workers)

    def open_job(self, job: BatchJob, position: Mapping[str, Any] | None = None) -> RayJobRun:
        """Open a batch job at its view, from a position on if one is given; raises as ``feed`` does."""
        opened = self._open(job.plan, job.view)
        feed_state = FeedState(opened, position)
        each = self.each.over(job.plan.resources)
        connect(self.address)
        if self.placement == "colocated":
            crew = self._sized(self._crew(each), [])
            assignment = self._assignment(opened, crew)
            stages = [_stage(MakeAndWorkActor, (assignment, job), crew, self.num_workers)]
            return RayJobRun(opened, feed_state, stages)
        on_job = Crew(self.num_job_workers, Resources(0 if each.gpus else 1, each.gpus))
        makers = self._sized(self._crew(replace(each, gpus=0)), [on_job])
        assignment = self._assignment(opened, makers)
        stages = [
            _stage(MakeActor, (assignment,), makers, self.num_workers),
            _stage(JobActor, (job,), on_job, on_job.num_workers),
        ]
        return RayJobRun(opened, feed_state, stages)

    def _open(self, plan: Plan, view: View) -> OpenView:
        check_is("plan", plan, Plan)
        check_is("view", view, View)
        opened = OpenView.of(plan, view)
        check_backend(opened, self._backend(plan))
        self.each.over(plan.resources)  # refused before Ray is touched
        return opened

    def _backend(self, plan: Plan) -> Backend:
        return self.backend or ("dali" if plan.device == "gpu" else "opencv")

    def _crew(self, each: Resources) -> Crew:
        return Crew(self.num_workers, each)

    def _sized(self, crew: Crew, others: list[Crew]) -> Crew:
        """Check that a crew fits beside others; where no number is given, count how many do."""
        nodes = rooms()
        if not crew.num_workers:
            crew = Crew(max(1, _most(crew.each, others, nodes)), crew.each)
        check_room([crew, *others], nodes)
        return crew

    def _assignment(self, opened: OpenView, crew: Crew) -> Assignment:
        return Assignment.of(
            opened,
            num_threads=max(1, math.ceil(crew.each.cpus)),
            num_batches=NUM_BATCHES,
            memory_bytes=self.memory_bytes,
            backend=self._backend(opened.plan),
        )


class _RayStream(TalliedFeed[T]):
    """What comes out of a cluster for each batch of a view, in order, with the books of a feed."""

    def __init__(self, opened: OpenView, feed_state: FeedState, stages: list[Stage]) -> None:
        super().__init__(opened, feed_state)
        self._stages = stages
        self._stopped = False

    def close(self) -> None:
        """End the execution at the next batch; one that is read to its end ends by itself."""
        super().close()
        self._stopped = True

    def _per_task(self, num_batches: int) -> int:  # noqa: ARG002
        """Batches that one task makes: what travels with pixels goes alone."""
        return 1

    def _most_bytes(self) -> int | None:
        """Bytes of finished batches that may wait in the object store: as many batches as workers make at a time."""
        under_way = 2 * NUM_BATCHES * sum(stage.num_now for stage in self._stages)
        return AHEAD * under_way * self._opened.largest_batch_bytes

    def _blocks(self) -> Iterator[Any]:
        self._tally = Tally()
        with self._tally as tally:
            first, end = self._feed_state.next, self._opened.schedule.num_batches
            if first == end:
                return
            per_task = self._per_task(end - first)
            tally.enter("input")
            try:
                for block in stream(
                    first, end, self._stages, per_task=per_task, most_bytes=self._most_bytes()
                ):
                    if self._stopped:
                        return
                    tally.enter("batch")
                    yield block
                    if self._stopped:
                        return
                    tally.enter("input")
            except WorkerDiedError as error:
                let_go(error)
                raise self._named(error, per_task) from error

    def _named(self, error: WorkerDiedError, per_task: int) -> WorkerDiedError:
        """Find the batch over which workers die, among those that lay at workers or finished before them."""
        schedule, first = self._opened.schedule, self._feed_state.next
        num_each = per_task * (SENT + 2 * AHEAD) * NUM_BATCHES
        last = first + num_each * sum(stage.num_now for stage in self._stages)
        number = find_poison(self._stages, first, min(last, schedule.num_batches))
        return error if number is None else poison_error(self._opened, number, RETRIES + 2)


class RayFeed(_RayStream[Batch]):
    """Batches of one view that a cluster makes; they are the consumer's own.

    Iterating raises:
        LightwellError: as ``LocalFeed`` raises.
        RunError: a worker failed, or died again and again.
    """

    def _batches(self) -> Iterator[Batch]:
        buffers = BufferPool()
        for block in self._blocks():
            made, told = from_block(block, buffers)
            self._tally.hear(told, block.nbytes)
            del block
            self._feed_state.take(made)
            if made.batch is not None:
                batch = made.batch
                del made
                self._tally.give_out(batch.num_images)
                yield batch
                del batch


class RayJobRun(_RayStream[BatchRecords]):
    """A batch job at work on a cluster: what it makes of each batch.

    Iterating raises what ``RayFeed`` raises, and what the job raises.
    """

    def _per_task(self, num_batches: int) -> int:
        if len(self._stages) > 1:
            return 1
        return max(1, min(BATCHES_PER_TASK, num_batches // (TASKS_PER_WORKER * self._stages[0].num_now)))

    def _batches(self) -> Iterator[BatchRecords]:
        for block in self._blocks():
            self._tally.hear({}, block.nbytes)
            for worked in block["worked"][0].as_py():
                self._tally.hear(worked.told, 0)
                made = worked.made
                self._feed_state.take(made)
                if made.num_made > made.num_skipped:
                    self._tally.give_out(made.num_read)
                    yield BatchRecords(worked.records, made.num_read, made.num_used)


def _most(each: Resources, others: list[Crew], nodes: list[NodeRoom]) -> int:
    """Count the workers of a kind that a cluster could hold beside others."""
    left = list(nodes)
    for crew in others:
        waiting = crew.num_workers
        for number, node in reversed(list(enumerate(left))) if not crew.each.gpus else enumerate(left):
            placed = min(waiting, node.most(crew.each))
            left[number] = node.without(crew.each, placed)
            waiting -= placed
    return sum(node.most(each) for node in left)


def _stage(make: type[Any], args: tuple[Any, ...], crew: Crew, num_workers: int) -> Stage:
    return Stage(make, args, crew.each, num_workers, crew.num_workers, NUM_BATCHES)
