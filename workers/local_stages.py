"""Runs stages in this process, over every kind of source."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import PlanError
from ..pipeline.jobs.contracts import quarantine_after
from ..pipeline.jobs.stage_run import StageRecords
from ..pipeline.jobs.stages import Batches, Files, Rows, conform_records
from ..pipeline.machine import default_memory_bytes, num_cpus
from ..pipeline.monitor.step_timer import FeedMonitor
from ..pipeline.runtime.feed_state import BaseFeed, FeedState
from ..pipeline.runtime.local_engine import LocalEngine
from ..pipeline.runtime.opencv_threads import SingleThreadedOpenCV
from ..pipeline.runtime.sample_batches import SampleBatches, SampleKind, open_samples

if TYPE_CHECKING:
    import pyarrow as pa

    from ..pipeline.jobs.contracts import Engine, Feed
    from ..pipeline.jobs.stage_run import StageRun
    from ..pipeline.jobs.stages import Images, Inputs, Stage
    from ..pipeline.monitor.stats import FeedStats
    from ..pipeline.runtime.batch_builder import BatchResult
    from ..pipeline.runtime.open_view import OpenView

QUEUED_PER_THREAD = 2
"""Batches of files or images in progress or finished, per thread."""


def open_local_stage(
    stage: Stage, inputs: Inputs, engine: Engine, position: Mapping[str, Any] | None = None
) -> StageRun:
    """Open a run of a stage in this process; ``engine`` makes the batches, if the stage reads batches.

    Raises:
        PlanError: the source, or the position, is invalid.
        SourceError: the index cannot be used or has no such split.
    """
    source = stage.source(inputs)
    if isinstance(source, Batches):
        return BatchesRun(stage, inputs, engine.feed(source.plan, source.view, position))
    if isinstance(source, Rows):
        return RowsRun(stage, inputs, source, position)
    local = engine if isinstance(engine, LocalEngine) else LocalEngine()
    return SamplesRun(stage, inputs, source, position, local)


def sample_view(source: Files | Images) -> tuple[OpenView, SampleKind]:
    """Open the samples that a stage reads; returns them and the kind of sample."""
    if isinstance(source, Files):
        return open_samples(source.plan, source.split, source.batch_size), "files"
    return open_samples(source.plan, source.split, source.batch_size, source.keys), "images"


class BatchesRun:
    """Maps a feed's batches to records, one after another; a context manager, like the feed."""

    def __init__(self, stage: Stage, inputs: Inputs, feed: Feed) -> None:
        self._stage = stage
        self._inputs = inputs
        self._feed = feed

    @property
    def num_batches(self) -> int:
        """Number of batches, from where the feed was opened."""
        return self._feed.num_batches

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far."""
        return self._feed.quarantine

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """Return the entries of ``quarantine`` from an index on, in a stable order."""
        return quarantine_after(self._feed, first)

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far."""
        return self._feed.counts

    def position(self) -> dict[str, Any]:
        """Return the feed's position."""
        return self._feed.position()

    def stats(self) -> FeedStats:
        """Return the feed's statistics."""
        return self._feed.stats()

    def __enter__(self) -> BatchesRun:
        self._feed.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._feed.__exit__(*exc)

    def __iter__(self) -> Iterator[StageRecords]:
        """Process the batches, without padding; each batch is released before the next one is read."""
        with self._stage.open(self._inputs) as process:
            for batch in self._feed:
                num_read, num_used = batch.num_images, int(batch.is_valid.sum())
                records = None
                if num_read:
                    records = conform_records(self._stage, process(batch.without_padding()))
                del batch
                yield StageRecords(records, num_read, num_used)


class SamplesRun(BaseFeed[StageRecords]):
    """Maps files or decoded images to records, in order, with the threads of the local engine.

    Iterating raises the errors of a local feed and of the stage.
    """

    def __init__(
        self,
        stage: Stage,
        inputs: Inputs,
        source: Files | Images,
        position: Mapping[str, Any] | None,
        engine: LocalEngine,
    ) -> None:
        opened, self._kind = sample_view(source)
        super().__init__(opened, FeedState(opened, position))
        self._stage = stage
        self._inputs = inputs
        self._num_threads = engine.num_threads or num_cpus()
        self._memory_bytes = engine.memory_bytes or default_memory_bytes()
        self._monitor = FeedMonitor()
        self._peak: Callable[[], int] = lambda: 0

    def stats(self) -> FeedStats:
        """Return time per step, throughput and memory use so far."""
        return self._monitor.read(
            num_threads=self._num_threads,
            replaced=0,
            memory_bytes=self._memory_bytes,
            peak_bytes=self._peak(),
        )

    def _batches(self) -> Iterator[StageRecords]:
        self._monitor = FeedMonitor()
        self._monitor.start()
        timer = self._monitor.timer("consume")
        samples = SampleBatches(
            self._opened, self._kind, memory_bytes=self._memory_bytes, monitor=self._monitor
        )
        self._peak = lambda: samples.budget.peak_bytes
        opencv_threads = SingleThreadedOpenCV()  # OpenCV's own threads would compete with these
        pool = ThreadPoolExecutor(self._num_threads, "lightwell-stage")
        try:
            with self._stage.open(self._inputs) as process:
                for future in self._in_order(pool, samples, process):
                    timer.enter("input")
                    result, records = samples.watchdog.wait_for(future)
                    timer.enter("batch")
                    self._feed_state.record_batch(result)
                    if result.num_read:
                        self._monitor.count_batch(result.num_read)
                        timer.enter("consumer")
                        yield StageRecords(records, result.num_read, result.num_used)
        finally:
            samples.close()
            pool.shutdown(wait=not samples.watchdog.timed_out, cancel_futures=True)
            opencv_threads.release()
            self._monitor.stop()

    def _in_order(
        self, pool: ThreadPoolExecutor, samples: SampleBatches, process: Callable[[Any], pa.RecordBatch]
    ) -> Iterator[Future[tuple[BatchResult, pa.RecordBatch | None]]]:
        """Keep some batches in progress and yield them in order."""

        def function(items: Iterator[Any]) -> pa.RecordBatch:
            return conform_records(self._stage, process(items))

        in_progress: deque[Future[tuple[BatchResult, pa.RecordBatch | None]]] = deque()
        for number in range(self._feed_state.next, self._opened.schedule.num_batches):
            in_progress.append(pool.submit(samples.process, number, function))
            if len(in_progress) >= QUEUED_PER_THREAD * self._num_threads:
                yield in_progress.popleft()
        yield from in_progress


class RowsRun:
    """Maps the records of an earlier stage to records, one item after another.

    Raises:
        PlanError: the stage does not need the one that it reads, or the position is not one of this stage.
    """

    def __init__(
        self, stage: Stage, inputs: Inputs, source: Rows, position: Mapping[str, Any] | None = None
    ) -> None:
        if source.stage not in inputs:
            raise PlanError(
                f"stage {stage.name}: expected to read a stage that it needs ({', '.join(inputs) or 'it needs none'}), got "
                f"{source.stage!r}; add it to `needs`"
            )
        self._stage = stage
        self._inputs = inputs
        self._table = inputs[source.stage]
        self._size = source.batch_size or max(1, self._table.num_rows)
        self._num_items = 1 if source.batch_size is None else -(-self._table.num_rows // self._size)
        first = 0 if position is None else position.get("item")
        if not isinstance(first, int) or not 0 <= first <= self._num_items:
            raise PlanError(
                f"stage {stage.name}: expected a position of up to {self._num_items} items, got {position!r}; run it anew"
            )
        self._first = self._next = first
        self._monitor = FeedMonitor()

    @property
    def num_batches(self) -> int:
        """Number of items, from where the run was opened."""
        return self._num_items - self._first

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Nothing: a table has no bad images."""
        return []

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:  # noqa: ARG002
        """Return nothing: a table has no bad images."""
        return []

    @property
    def counts(self) -> dict[str, int]:
        """No images."""
        return {"read": 0, "used": 0, "replaced": 0, "skipped": 0}

    def position(self) -> dict[str, Any]:
        """Return the number of items that were consumed."""
        return {"item": self._next}

    def stats(self) -> FeedStats:
        """Return the throughput in rows."""
        return self._monitor.read(num_threads=1, replaced=0, memory_bytes=0, peak_bytes=0)

    def __enter__(self) -> RowsRun:
        return self

    def __exit__(self, *exc: object) -> None:
        self._monitor.stop()

    def __iter__(self) -> Iterator[StageRecords]:
        """Process the items in order."""
        self._monitor.start()
        for records in self._records(self._next):
            num_rows = min(self._size, self._table.num_rows - self._next * self._size)
            self._next += 1
            self._monitor.count_batch(num_rows)
            yield StageRecords(records, 0, 0, num_rows)

    def _records(self, first: int) -> Iterator[pa.RecordBatch]:
        with self._stage.open(self._inputs) as process:
            for number in range(first, self._num_items):
                rows = self._table.slice(number * self._size, self._size)
                yield conform_records(self._stage, process(rows))
