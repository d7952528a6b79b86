"""Ray engine: batches made by actors of a cluster, equal to the local engine's and in the same order.

``colocated``: a stage runs in the actors that make its batches; only keys and records are transferred.
``separate``: some actors make batches, others, which may have GPUs, run the stage; feeds transfer batches to this process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.compiler.routing import Backend
from ...pipeline.config.argument_checks import check_choice, check_count, check_text, check_type
from ...pipeline.errors import PlanError
from ...pipeline.jobs.stage_run import StageRecords
from ...pipeline.jobs.stages import Batches, Rows
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.runtime.batch_builder import check_backend
from ...pipeline.runtime.feed_state import FeedState
from ...pipeline.runtime.open_view import OpenView
from ..local_stages import RowsRun, sample_view
from .actor import BatchActor, PoolActor, WorkerConfig
from .actor_pool import PoolSpec
from .blocks import from_block
from .cluster import (
    ResourceRequest,
    Resources,
    WorkerGroup,
    check_capacity,
    connect,
    list_nodes,
    max_workers,
    store_bytes,
)
from .crashing_batch import poison_error, poison_item_error
from .stage_actors import (
    BatchStageActor,
    RowsStageActor,
    SamplesStageActor,
    StageActor,
    StageConfig,
)
from .stats_aggregator import RemoteFeed, StatsAggregator
from .stream import Limits, stream

if TYPE_CHECKING:
    import pyarrow as pa

    from ...pipeline.jobs.stage_run import StageRun
    from ...pipeline.jobs.stages import Inputs, Stage
    from ...pipeline.runtime.sample_batches import SampleKind

T = TypeVar("T")
Placement = Literal["colocated", "separate"]
NUM_BATCHES = 2
"""Batches that a worker makes concurrently: the next is decoded while one is assembled and returned."""

BATCHES_PER_TASK = 4
"""Maximum number of batches per task of a colocated job; a task costs this process a few milliseconds."""
STORE_SHARE = 2
"""The cluster's object stores, divided by this, hold all batches that are in progress or finished."""
TASKS_PER_WORKER = 8
"""Minimum number of tasks per worker if tasks have several batches, so that workers finish together."""


@dataclass(frozen=True)
class RayEngine:
    """Runs plans and the stages of batch jobs on a Ray cluster."""

    address: str | None = None
    """``host:port``, ``ray://host:port`` or ``auto``; None starts Ray on this machine."""
    num_workers: int = 0
    """Actors that make batches; 0 means as many as fit, including ones that fit later."""
    per_worker: Resources | ResourceRequest = field(default_factory=ResourceRequest)
    """Resources of one worker, overriding the plan; it has as many threads as CPUs. GPUs are for the job, with
    ``separate`` in workers of its own."""
    placement: Placement = "colocated"
    memory_bytes: int = 0
    """Memory limit of one worker; 0 means 25 % of its machine, divided by the number of workers that fit there."""
    backend: Backend | None = None
    """What works on pixels; None takes DALI for plans on a GPU, OpenCV for plans on the CPU."""
    num_job_workers: int = 1
    """Actors that run the job with ``separate``."""

    def __post_init__(self) -> None:
        check_text("address", self.address)
        check_count("num_workers", self.num_workers)
        check_type("each", self.per_worker, Resources, ResourceRequest)
        check_choice("placement", self.placement, get_args(Placement))
        check_count("memory_bytes", self.memory_bytes, maximum=2**62)
        check_count("num_job_workers", self.num_job_workers)
        if self.backend is not None:
            check_choice("backend", self.backend, get_args(Backend))
        if self.num_job_workers < 1 or (self.num_job_workers > 1 and self.placement != "separate"):
            raise PlanError(
                "ray: expected job workers only with the placement separate, and at least one, got "
                f"{self.num_job_workers} with {self.placement}; add --placement separate, or leave --job-workers out"
            )

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> RayFeed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: plan or view is invalid, the position belongs to another, or the cluster can never hold the
                workers.
            SourceError: the index cannot be used or has no such split.
            RunError: there is no cluster at the address.
        """
        opened = self._open(plan, view)
        feed_state = FeedState(opened, position)
        connect(self.address)
        return RayFeed(opened, feed_state, [self.batch_pool(opened)])

    def batch_pool(self, opened: OpenView) -> PoolSpec:
        """Return the stage that makes the batches of a view on the connected cluster.

        Raises:
            PlanError: the cluster can never hold its workers.
        """
        on_gpu = opened.plan.device == "gpu"
        per_worker = self.per_worker.with_defaults(opened.plan.resources)
        group = self._resolve_size(
            self._worker_group(per_worker if on_gpu else replace(per_worker, gpus=0)), []
        )
        return _pool_spec(BatchActor, (self._worker_config(opened, group),), group, self.num_workers)

    def open_stage(self, stage: Stage, inputs: Inputs, position: Mapping[str, Any] | None = None) -> StageRun:
        """Open a run of a stage, from a position on if one is given; raises as ``feed`` does."""
        source = stage.source(inputs)
        if isinstance(source, Rows):
            return self._open_rows(stage, inputs, source, position)
        if isinstance(source, Batches):
            opened = self._open(source.plan, source.view)
            feed_state = FeedState(opened, position)
            connect(self.address)
            pools = self._batch_pools(stage, inputs, opened)
        else:
            opened, kind = sample_view(source)
            feed_state = FeedState(opened, position)
            connect(self.address)
            pools = [self._sample_pool(stage, inputs, opened, kind)]
        return RayStageRun(opened, feed_state, pools)

    def _batch_pools(self, stage: Stage, inputs: Inputs, opened: OpenView) -> list[PoolSpec]:
        per_worker = self.per_worker.with_defaults(opened.plan.resources)
        own = StageConfig.of(stage, inputs)
        if self.placement == "colocated":
            group = self._resolve_size(self._worker_group(per_worker), [])
            config = self._worker_config(opened, group)
            return [_pool_spec(BatchStageActor, (config, own), group, self.num_workers)]
        on_job = self._job_workers(per_worker)
        makers = self._resolve_size(self._worker_group(replace(per_worker, gpus=0)), [on_job])
        return [
            _pool_spec(BatchActor, (self._worker_config(opened, makers),), makers, self.num_workers),
            _pool_spec(StageActor, (own,), on_job, on_job.num_workers),
        ]

    def _sample_pool(self, stage: Stage, inputs: Inputs, opened: OpenView, kind: SampleKind) -> PoolSpec:
        per_worker = self.per_worker.with_defaults(opened.plan.resources)
        group = self._resolve_size(self._worker_group(per_worker), [])
        config = self._worker_config(opened, group)
        args = (config, kind, StageConfig.of(stage, inputs))
        pool = _pool_spec(SamplesStageActor, args, group, self.num_workers)
        return replace(pool, num_batches=config.num_threads)

    def _open_rows(
        self, stage: Stage, inputs: Inputs, source: Rows, position: Mapping[str, Any] | None
    ) -> StageRun:
        def pool() -> PoolSpec:
            connect(self.address)
            group = self._resolve_size(self._job_workers(self.per_worker.with_defaults(None)), [])
            return _pool_spec(
                RowsStageActor, (StageConfig.of(stage, inputs), source), group, group.num_workers
            )

        return RayRowsRun(stage, inputs, source, position, pool)

    def _job_workers(self, per_worker: Resources) -> WorkerGroup:
        """Return the workers that run a stage without making its batches."""
        return WorkerGroup(self.num_job_workers, Resources(0 if per_worker.gpus else 1, per_worker.gpus))

    def _open(self, plan: Plan, view: View) -> OpenView:
        check_type("plan", plan, Plan)
        check_type("view", view, View)
        opened = OpenView.of(plan, view)
        check_backend(opened, self._backend(plan))
        self.per_worker.with_defaults(plan.resources)  # checked before Ray is started
        return opened

    def _backend(self, plan: Plan) -> Backend:
        return self.backend or ("dali" if plan.device == "gpu" else "opencv")

    def _worker_group(self, per_worker: Resources) -> WorkerGroup:
        return WorkerGroup(self.num_workers, per_worker)

    def _resolve_size(self, group: WorkerGroup, others: list[WorkerGroup]) -> WorkerGroup:
        """Check that a group of workers fits beside others; without a number use as many as fit."""
        nodes = list_nodes()
        if not group.num_workers:
            group = WorkerGroup(max(1, max_workers(group.per_worker, others, nodes)), group.per_worker)
        check_capacity([group, *others], nodes)
        return group

    def _worker_config(self, opened: OpenView, group: WorkerGroup) -> WorkerConfig:
        return WorkerConfig.of(
            opened,
            num_threads=max(1, math.ceil(group.per_worker.cpus)),
            num_batches=NUM_BATCHES,
            memory_bytes=self.memory_bytes,
            backend=self._backend(opened.plan),
        )


class _RayStream(RemoteFeed[T]):
    """Ordered stream of a cluster's results, one per batch of a view, with the state of a feed."""

    def __init__(self, opened: OpenView, feed_state: FeedState, pools: list[PoolSpec]) -> None:
        super().__init__(opened, feed_state)
        self._pools = pools
        self._stopped = False

    def close(self) -> None:
        """Stop the execution at the next batch; one that is read to its end stops by itself."""
        super().close()
        self._stopped = True

    def _per_task(self, num_batches: int) -> int:  # noqa: ARG002
        """Return the number of batches per task; 1 if pixels are transferred."""
        return 1

    def _max_batches(self) -> int | None:
        """Return the maximum number of batches in the object store; None if no pixels are transferred."""
        return max(1, store_bytes() // (STORE_SHARE * self._opened.largest_batch_bytes))

    def _blocks(self) -> Iterator[Any]:
        self._stats = StatsAggregator()
        with self._stats as stats:
            first, end = self._feed_state.next, self._opened.schedule.num_batches
            if first == end:
                return
            limits = Limits(self._per_task(end - first), self._max_batches())
            stats.enter("input")
            with closing(
                stream(first, end, self._pools, limits, partial(poison_error, self._opened))
            ) as blocks:
                for block in blocks:
                    if self._stopped:
                        return
                    stats.enter("batch")
                    yield block
                    del block
                    if self._stopped:
                        return
                    stats.enter("input")


class RayFeed(_RayStream[Batch]):
    """Batches of one view, made by a cluster; the consumer owns them.

    Iterating raises:
        LightwellError: as ``LocalFeed`` raises.
        RunError: a worker failed, or died repeatedly.
    """

    def _batches(self) -> Iterator[Batch]:
        buffers = BufferPool()
        for block in self._blocks():
            result, worker_stats = from_block(block, buffers)
            self._stats.update(worker_stats, block.nbytes)
            del block
            self._feed_state.record_batch(result)
            if result.batch is not None:
                batch = result.batch
                del result
                self._stats.count_batch(batch.num_images)
                yield batch
                del batch


class RayStageRun(_RayStream[StageRecords]):
    """Stream of a stage over batches, files or images that runs on a cluster.

    Iterating raises the errors of ``RayFeed`` and of the stage.
    """

    def _per_task(self, num_batches: int) -> int:
        if len(self._pools) > 1:
            return 1
        return max(
            1, min(BATCHES_PER_TASK, num_batches // (TASKS_PER_WORKER * self._pools[0].initial_workers))
        )

    def _max_batches(self) -> int | None:
        return None if len(self._pools) == 1 else super()._max_batches()

    def _batches(self) -> Iterator[StageRecords]:
        for block in self._blocks():
            for output in block:
                self._stats.update(output.worker_stats, output.nbytes)
                result = output.result
                self._feed_state.record_batch(result)
                if result.num_made > result.num_skipped:
                    self._stats.count_batch(result.num_read)
                    yield StageRecords(output.records, result.num_read, result.num_used)


class RayRowsRun(RowsRun):
    """Stream of a stage over the records of another that runs on a cluster.

    Iterating raises the errors of the stage.

    Args:
        pool: starts the workers, once there is something to do.
    """

    def __init__(
        self,
        stage: Stage,
        inputs: Inputs,
        source: Rows,
        position: Mapping[str, Any] | None,
        pool: Callable[[], PoolSpec],
    ) -> None:
        super().__init__(stage, inputs, source, position)
        self._pool = pool

    def _records(self, first: int) -> Iterator[pa.RecordBatch]:
        if first == self._num_items:
            return
        name = self._stage.name
        with closing(
            stream(first, self._num_items, [self._pool()], Limits(), partial(poison_item_error, name))
        ) as blocks:
            for block in blocks:
                for output in block:
                    if output.result.error is not None:
                        raise output.result.error
                    assert output.records is not None
                    yield output.records


def _pool_spec(
    make: type[PoolActor], args: tuple[Any, ...], group: WorkerGroup, num_workers: int
) -> PoolSpec:
    return PoolSpec(make, args, group.per_worker, num_workers, group.num_workers, NUM_BATCHES)
