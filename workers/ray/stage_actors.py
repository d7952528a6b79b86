"""Ray actors that run stages: over batches made elsewhere, made in the same actor, over files or images, and over rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...pipeline.batch.buffers import BufferPool
from ...pipeline.errors import LightwellError
from ...pipeline.jobs.stages import Rows, conform_records
from ...pipeline.machine import default_memory_bytes
from ...pipeline.runtime.batch_builder import BatchResult
from ...pipeline.runtime.opencv_threads import SingleThreadedOpenCV
from ...pipeline.runtime.sample_batches import SampleBatches, SampleKind
from ..malloc import keep_freed_memory
from .actor import BatchWorker, PoolActor, WorkerConfig, WorkerReport, result_or_error
from .blocks import Block, from_block

if TYPE_CHECKING:
    import ray

    from ...pipeline.jobs.stages import Stage


@dataclass(frozen=True)
class StageConfig:
    """A stage and the records that it needs, in the object store. Pickled by value."""

    stage: Stage
    inputs: Mapping[str, ray.ObjectRef[pa.Table]]

    @classmethod
    def of(cls, stage: Stage, inputs: Mapping[str, pa.Table]) -> StageConfig:
        """Put the inputs into the object store."""
        import ray

        return cls(stage, {name: ray.put(table) for name, table in inputs.items()})

    def load_inputs(self) -> dict[str, pa.Table]:
        """Return the inputs, shared with other processes of the node."""
        import ray

        return {name: ray.get(reference) for name, reference in self.inputs.items()}


@dataclass(frozen=True, slots=True)
class StageOutput:
    """Result of a stage for one item, as sent to the driver."""

    result: BatchResult
    """Without the pixels."""
    records: pa.RecordBatch | None
    worker_stats: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Size of the records."""
        return 0 if self.records is None else self.records.nbytes


class StageActor(PoolActor):
    """Actor that maps a finished batch to the stage's result. Processes one batch at a time."""

    def __init__(self, config: StageConfig) -> None:
        keep_freed_memory()
        self._stage = config.stage
        self._opened = ExitStack()
        self._process = result_or_error(
            lambda: self._opened.enter_context(config.stage.open(config.load_inputs()))
        )
        self._buffers = BufferPool()
        self._lock = threading.Lock()

    def __call__(self, block: Block) -> list[StageOutput]:
        """Process one batch."""
        return [self.process(*from_block(block, self._buffers))]

    def close(self) -> None:
        """Close the stage."""
        self._opened.close()

    def process(self, result: BatchResult, worker_stats: Mapping[str, Any]) -> StageOutput:
        """Run the stage on a batch."""
        records = None
        if isinstance(self._process, LightwellError):
            result = replace(result, error=result.error or self._process)
        elif result.batch is not None and result.num_read:
            try:
                with self._lock:
                    records = conform_records(self._stage, self._process(result.batch.without_padding()))
            except LightwellError as error:
                result = replace(result, error=error)
        return StageOutput(replace(result, batch=None), records, worker_stats)


class BatchStageActor(PoolActor):
    """Actor that maps numbers of batches to the stage's results; pixels stay in the actor."""

    def __init__(self, config: WorkerConfig, stage: StageConfig) -> None:
        self._worker = result_or_error(lambda: BatchWorker(config))
        self._stage = StageActor(stage)

    def __call__(self, numbers: range) -> list[StageOutput]:
        """Build and process the batches, one after another."""
        return [self._build_and_process(number) for number in numbers]

    def close(self) -> None:
        """Close the stage and end the worker's threads."""
        self._stage.close()
        if isinstance(self._worker, BatchWorker):
            self._worker.close()

    def _build_and_process(self, number: int) -> StageOutput:
        if isinstance(self._worker, LightwellError):
            return self._stage.process(BatchResult(number, None, error=self._worker), {})
        with self._worker.build(number) as result:
            return self._stage.process(result, self._worker.worker_stats())


class SamplesStageActor(PoolActor):
    """Actor that maps numbers of batches of files or images to the stage's results."""

    def __init__(self, config: WorkerConfig, kind: SampleKind, stage: StageConfig) -> None:
        keep_freed_memory()
        self._stage = stage.stage
        self._opened = ExitStack()
        self._open = result_or_error(lambda: self._open_stage(config, kind, stage))

    def _open_stage(self, config: WorkerConfig, kind: SampleKind, stage: StageConfig) -> tuple[Any, ...]:
        memory_bytes = config.memory_bytes or default_memory_bytes()
        samples = SampleBatches(config.open_view(), kind, memory_bytes=memory_bytes)
        samples.monitor.start()
        self._opened.callback(samples.close)
        self._opened.callback(SingleThreadedOpenCV().release)
        process = self._opened.enter_context(stage.stage.open(stage.load_inputs()))
        report = WorkerReport(samples.monitor, samples.budget, config.num_threads)
        return samples, process, report

    def __call__(self, numbers: range) -> list[StageOutput]:
        """Process the batches, one after another."""
        return [self._process(number) for number in numbers]

    def close(self) -> None:
        """Close the stage."""
        self._opened.close()

    def _process(self, number: int) -> StageOutput:
        if isinstance(self._open, LightwellError):
            return StageOutput(BatchResult(number, None, error=self._open), None, {})
        samples, process, report = self._open

        def function(items: Iterator[Any]) -> pa.RecordBatch:
            return conform_records(self._stage, process(items))

        result, records = samples.process(number, function)
        return StageOutput(result, records, report.take())


class RowsStageActor(PoolActor):
    """Actor that maps numbers of items of a table to the stage's results. Processes one item at a time."""

    def __init__(self, config: StageConfig, source: Rows) -> None:
        keep_freed_memory()
        self._stage = config.stage
        self._opened = ExitStack()
        self._inputs = config.load_inputs()
        self._table = self._inputs[source.stage]
        self._size = source.batch_size or max(1, self._table.num_rows)
        self._process = result_or_error(lambda: self._opened.enter_context(config.stage.open(self._inputs)))
        self._lock = threading.Lock()

    def __call__(self, numbers: range) -> list[StageOutput]:
        """Process the items, one after another."""
        return [self._run(number) for number in numbers]

    def close(self) -> None:
        """Close the stage."""
        self._opened.close()

    def _run(self, number: int) -> StageOutput:
        if isinstance(self._process, LightwellError):
            return StageOutput(BatchResult(number, None, error=self._process), None, {})
        rows = self._table.slice(number * self._size, self._size)
        try:
            with self._lock:
                records = conform_records(self._stage, self._process(rows))
        except LightwellError as error:
            return StageOutput(BatchResult(number, None, error=error), None, {})
        return StageOutput(BatchResult(number, None), records, {})
