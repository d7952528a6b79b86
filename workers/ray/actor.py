"""Ray actors: each holds one view of a plan open and makes its batches by number, several concurrently."""

from __future__ import annotations

import os
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ...pipeline.compiler.routing import Backend
from ...pipeline.errors import LightwellError, RunError, SourceError
from ...pipeline.executor.cached import CacheReader
from ...pipeline.index.index import Index
from ...pipeline.machine import default_memory_bytes
from ...pipeline.memory.budget import MemoryBudget, split_budget
from ...pipeline.monitor.step_timer import FeedMonitor
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View
from ...pipeline.runtime.batch_builder import BatchBuilder, BatchResult
from ...pipeline.runtime.open_view import OpenView
from ..malloc import keep_freed_memory
from .blocks import Block, to_block

if TYPE_CHECKING:
    import ray


T = TypeVar("T")
REPORT_INTERVAL_S = 0.5
"""Interval at which a worker reports its statistics."""

INLINE_INDEX_BYTES = 64 << 20
"""Maximum size of an index that is sent to the workers; they read a larger one from its path."""
NUM_PROBES = 3


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of a worker for one view. Pickled by value; a large index only by its path."""

    plan: Plan
    view: View
    fingerprint: str
    """Fingerprint of the plan with its index, computed by the driver."""
    index: ray.ObjectRef[Index] | None
    """The index in the object store, if it is small."""
    probes: tuple[str, ...]
    """Files that the driver can read; if a worker can read none of them, its mounts differ."""
    num_threads: int
    num_batches: int
    """Batches that are made concurrently."""
    memory_bytes: int
    backend: Backend

    @classmethod
    def of(
        cls, opened: OpenView, *, num_threads: int, num_batches: int, memory_bytes: int, backend: Backend
    ) -> WorkerConfig:
        """Build the configuration for an opened view; puts a small index into the object store."""
        import ray

        table = opened.index.table
        visible = [
            uri
            for uri in table["uri"].take(opened.rows[:NUM_PROBES]).to_pylist()
            if "://" not in uri and os.path.exists(uri)  # noqa: PTH110  (uris are text, and there may be many)
        ]
        return cls(
            opened.plan,
            opened.view,
            opened.fingerprint,
            ray.put(opened.index) if table.nbytes <= INLINE_INDEX_BYTES else None,
            tuple(visible),
            num_threads,
            num_batches,
            memory_bytes,
            backend,
        )

    def open_view(self) -> OpenView:
        """Open the view on the worker.

        Raises:
            RunError: this node cannot read the index or the files, or reads different ones.
        """
        where = f"node {os.uname().nodename!r}"
        cure = "put it in a folder that all nodes mount at the same path, or into a bucket (s3://...)"
        if self.probes and not any(os.path.exists(uri) for uri in self.probes):  # noqa: PTH110
            raise RunError(
                f"{where}: expected to read {self.probes[0]!r}, as the driver can, got no such file; {cure}"
            )
        try:
            opened = OpenView.of(self.plan, self.view, self._load_index())
        except SourceError as error:
            raise RunError(f"{where}: the index cannot be read there ({error}); {cure}") from error
        if opened.fingerprint != self.fingerprint:
            raise RunError(
                f"{where}: expected the driver's index {str(self.plan.index)!r}, got a different one; {cure}"
            )
        return opened

    def _load_index(self) -> Index:
        import ray

        return self.plan.load_index() if self.index is None else ray.get(self.index)


class WorkerReport:
    """Statistics of one worker process, for the driver. Thread-safe."""

    def __init__(self, monitor: FeedMonitor, budget: MemoryBudget, num_threads: int) -> None:
        self._monitor = monitor
        self._budget = budget
        self._num_threads = num_threads
        self._name = uuid.uuid4().hex
        self._last_report_s = -REPORT_INTERVAL_S
        self._lock = threading.Lock()

    def take(self) -> Mapping[str, Any]:
        """Return the statistics so far as JSON values, or nothing within the interval; see ``StatsAggregator``."""
        with self._lock:
            now = time.monotonic()
            if now - self._last_report_s < REPORT_INTERVAL_S:
                return {}
            self._last_report_s = now
        stats = self._monitor.read(
            num_threads=self._num_threads,
            replaced=0,
            memory_bytes=self._budget.split.total,
            peak_bytes=self._budget.peak_bytes,
        )
        names = ("cpu_s", "num_threads", "cache_hits", "memory_bytes", "peak_bytes")
        threads = [asdict(thread) for thread in stats.threads]
        return {"worker": self._name, "threads": threads, **{name: getattr(stats, name) for name in names}}


class BatchWorker:
    """Makes the batches of one view in an actor's process. Thread-safe; end it with ``close``."""

    def __init__(self, config: WorkerConfig) -> None:
        keep_freed_memory()
        opened = config.open_view()
        shares = split_budget(
            config.memory_bytes or default_memory_bytes(),
            batch_bytes=opened.largest_batch_bytes,
            prefetch=config.num_batches,
            cached=opened.plan.cache is not None,
        )
        self._builder = BatchBuilder(
            opened,
            shares,
            num_threads=config.num_threads,
            backend=config.backend,
            cached=CacheReader.open(opened.program, opened.index, shares.cache),
        )
        self._builder.monitor.start()
        self._report = WorkerReport(self._builder.monitor, self._builder.budget, config.num_threads)

    @contextmanager
    def build(self, number: int) -> Iterator[BatchResult]:
        """Build one batch; see ``BatchBuilder.build``."""
        with self._builder.build(number) as result:
            yield result

    def worker_stats(self) -> Mapping[str, Any]:
        """Return this worker's statistics so far, or nothing within the interval; see ``WorkerReport``."""
        return self._report.take()

    def close(self) -> None:
        """End the threads; what they have cached is published."""
        self._builder.monitor.stop()
        self._builder.__exit__(None, None, None)


class PoolActor(ABC):
    """Actor that maps an item to a result: the first stage of a run numbers of batches, the others what comes before."""

    @abstractmethod
    def __call__(self, item: Any) -> Any:
        """Process an item."""

    @abstractmethod
    def close(self) -> None:
        """Close everything at the end of a run, and publish cached pixels."""

    def node_id(self) -> str:
        """Return the id of this node, once the actor is open."""
        import ray

        found: str = ray.get_runtime_context().get_node_id()
        return found

    def live(self) -> None:
        """Never return: the call fails when the process ends, busy or not."""
        threading.Event().wait()

    def run(self, item: Any) -> tuple[None, Any]:
        """Process an item; the first object is small and ready as soon as the second, which may be large."""
        return None, self(item)


class BatchActor(PoolActor):
    """Actor that maps the number of a batch to the batch."""

    def __init__(self, config: WorkerConfig) -> None:
        self._worker = result_or_error(lambda: BatchWorker(config))

    def __call__(self, numbers: range) -> Block:
        """Build one batch."""
        (number,) = numbers
        if isinstance(self._worker, LightwellError):
            return to_block(BatchResult(number, None, error=self._worker))
        with self._worker.build(number) as result:
            return to_block(result, self._worker.worker_stats())

    def close(self) -> None:
        """End the worker's threads."""
        if isinstance(self._worker, BatchWorker):
            self._worker.close()


def result_or_error(function: Callable[[], T]) -> T | LightwellError:
    """Call a function and return its result or its LightwellError; an actor that fails to start sends only a traceback."""
    try:
        return function()
    except LightwellError as error:
        return error
