"""One execution of Ray Data over the batches of all epochs: numbers go in, one block for each comes out, in order.

    numbers -> a pool of actors, each with its view held open -> blocks of one row -> (another pool) -> this process

A task makes one batch. Numbers are made up by a few tasks as they are needed, and nowhere is there a list of them.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...pipeline.errors import LightwellError, RunError, WorkerDiedError
from .cluster import Resources

if TYPE_CHECKING:
    from ray.data import Dataset

NUMBERS_PER_TASK = 4096
"""Batches whose numbers one task makes up; so many at most are made up again when its process dies."""
RETRIES = 3
"""Times that a batch is made again when the process that makes it dies, before the run ends."""
QUEUED_PER_SLOT = 4
"""Tasks that lie at a worker may be so many times those that it works on: with twice it waited a sixth of its time for the
next. Some have to wait there anyway, or Ray adds no workers."""
PREFETCHED = 2
"""Finished batches that this process fetches ahead."""


@dataclass(frozen=True)
class Stage:
    """A pool of actors that each block goes through."""

    actor_class: Callable[..., Any]
    """A class whose instances map a table of one row to another."""
    args: Sequence[Any]
    per_worker: Resources
    num_workers: int
    """0 takes as many as there is room for, now and later."""
    initial_workers: int
    """Workers to start with."""
    num_batches: int
    """That one worker takes at a time."""


def stream(
    first: int, end: int, stages: Sequence[Stage], *, per_task: int = 1, max_bytes: int | None = None
) -> Iterator[Any]:
    """Send the numbers from ``first`` up to ``end`` through the stages; yields what comes out of the last, in order.

    Args:
        first: number of the first batch.
        end: number behind the last.
        stages: what they go through.
        per_task: batches that one task of the first stage makes.
        max_bytes: that may lie finished in the object store; None leaves it to Ray, which takes half of it.

    Raises:
        RunError: a worker failed, or died again and again.
        LightwellError: what a worker raised on purpose.
    """
    import ray
    from ray.data import DataContext, ExecutionResources

    context = DataContext.get_current().copy()
    context.enable_progress_bars = False  # ours counts images
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # whatever is one row is a block; it is cut no smaller
    context.memory_usage_poll_interval_s = (
        None  # reading every worker's memory each second costs more than it tells
    )
    context.execution_options.preserve_order = True
    if max_bytes is not None:
        context.execution_options.resource_limits = ExecutionResources.for_limits(
            object_store_memory=max_bytes
        )
    with DataContext.current(context):
        blocks: Dataset = _numbers(first, end, per_task)
        some_gpus = any(stage.per_worker.gpus for stage in stages)
        for stage in stages:
            blocks = _add_stage(blocks, stage, spread=not some_gpus or stage.per_worker.gpus > 0)
        batches = iter(
            blocks.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=PREFETCHED)
        )
    try:
        with _quiet_ray_data(), closing(batches):  # type: ignore[type-var]
            yield from batches
    except (ray.exceptions.RayError, RuntimeError) as error:
        raise unwrap_ray_error(error) from error


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """Keep Ray Data's lines and tracebacks off the console, where ours stand; its log files have them all."""
    handlers = [
        one for one in logging.getLogger("ray.data").handlers if type(one).__name__ != "SessionFileHandler"
    ]

    def is_critical(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.CRITICAL

    for handler in handlers:
        handler.addFilter(is_critical)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_critical)


def _numbers(first: int, end: int, per_task: int) -> Dataset:
    import ray
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    stride = NUMBERS_PER_TASK * per_task

    class Numbers(Datasource):
        """The numbers of batches, each a block."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *_: object, **__: object) -> list[ReadTask]:  # noqa: ARG002
            return [_read_task(start, min(start + stride, end)) for start in range(first, end, stride)]

    def _read_task(start: int, stop: int) -> ReadTask:
        num_rows = -(-(stop - start) // per_task)
        told = BlockMetadata(num_rows=num_rows, size_bytes=16 * num_rows, input_files=None, exec_stats=None)
        return ReadTask(lambda: number_blocks(start, stop, per_task), told)

    found: Dataset = ray.data.read_datasource(
        Numbers(),  # type: ignore[no-untyped-call]
        num_cpus=0,  # the actors may hold them all
        concurrency=1,
        override_num_blocks=-(-(end - first) // stride),
    )
    return found


def number_blocks(start: int, stop: int, step: int) -> Iterable[pa.Table]:
    """Yield the first number of each task and how many there are, as a table of one row."""
    for number in range(start, stop, step):
        cells = {"number": [number], "count": [min(step, stop - number)]}
        yield pa.table(cells, schema=pa.schema({"number": pa.int64(), "count": pa.int64()}))


def _add_stage(blocks: Dataset, stage: Stage, *, spread: bool) -> Dataset:
    from ray.data import ActorPoolStrategy

    fixed = stage.num_workers or None
    pool = ActorPoolStrategy(
        min_size=fixed or 1,
        max_size=fixed,
        initial_size=fixed or stage.initial_workers,
        max_tasks_in_flight_per_actor=QUEUED_PER_SLOT * stage.num_batches,
        max_concurrent_calls_per_actor=stage.num_batches,
        enable_true_multi_threading=True,
    )
    with warnings.catch_warnings():
        # Ray has no other way yet to bound how often a task is made again whose process dies.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return blocks.map_batches(
            stage.actor_class,
            fn_constructor_args=tuple(stage.args),
            batch_size=1
            if stage.per_worker.gpus
            else None,  # a block is one row; beside GPUs Ray wants it said
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=pool,
            num_cpus=stage.per_worker.cpus,
            num_gpus=stage.per_worker.gpus or None,
            # Beside workers that hold GPUs others go where there are none, while there is room.
            scheduling_strategy="SPREAD" if spread else "DEFAULT",
            max_restarts=-1,
            max_task_retries=RETRIES,
        )


def unwrap_ray_error(error: BaseException) -> LightwellError:
    """Find what a worker raised on purpose, or say that it failed or died."""
    import ray

    seen: BaseException | None = error
    while seen is not None:
        inner = getattr(seen, "cause", None)
        if isinstance(
            inner, BaseException
        ):  # first: what Ray raises for it is of its class as well, with a traceback
            seen = inner
        elif isinstance(seen, LightwellError):
            return seen
        else:
            seen = seen.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
    if isinstance(error, ray.exceptions.RayActorError) and not error.actor_init_failed:
        return WorkerDiedError(
            f"a worker: expected a process that lives, got one that died {RETRIES + 1} times ({lines[0]}); "
            "look into Ray's logs for why, such as memory (ask for more CPUs per worker, and so for fewer workers)"
        )
    return RunError(f"a worker failed: {lines[-1]}")
