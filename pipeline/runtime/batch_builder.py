"""Builds the batches of an opened view by number, for local feeds and for Ray actors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ..batch.batch import Batch
from ..batch.mix import mix_batch
from ..compiler.routing import Backend
from ..errors import LightwellError, PlanError
from ..executor.cached import CacheReader
from ..executor.sample_worker import WorkerContext
from ..load.loader import SampleLoader
from ..memory.budget import BudgetSplit, MemoryBudget
from ..monitor.quarantine import QuarantineEntry
from ..monitor.step_timer import FeedMonitor
from ..monitor.watchdog import Watchdog
from ..sampler.schedule import BatchSpec
from .open_view import OpenView
from .opencv_threads import SingleThreadedOpenCV
from .worker_pool import CHUNK_IMAGES, OpenBatch, WorkerPool


@dataclass(frozen=True, slots=True)
class BatchResult:
    """A finished batch, or the reason why there is none, with counts and quarantine entries."""

    number: int
    """Counted from 0 over all epochs of the view."""
    batch: Batch | None
    """None if all images were skipped, if it failed, or if it stayed in the process that built it."""
    num_made: int = 0
    """Samples processed for it, including the halo sample of another rank's slice."""
    num_failed: int = 0
    """Of these, those that could not be used."""
    num_read: int = 0
    """Images of the batch, without padding."""
    num_used: int = 0
    """Of these, those that are neither replaced nor padding."""
    num_skipped: int = 0
    """Images that were skipped."""
    entries: tuple[QuarantineEntry, ...] = ()
    """Samples that could not be used, in row order."""
    error: LightwellError | None = None
    """Error that ends the run."""


class BatchBuilder:
    """Builds batches of one view with a pool of threads, a cache and a memory budget; a context manager.

    Args:
        opened: the view.
        shares: memory limits.
        num_threads: threads that process samples; as many more read files.
        backend: library that processes pixels.
        cached: the opened cache of the plan.
        activity: records time per step.

    Raises:
        PlanError: the plan has a cache and the backend does not support it.
    """

    def __init__(
        self,
        opened: OpenView,
        split: BudgetSplit,
        *,
        num_threads: int,
        backend: Backend = "opencv",
        cached: CacheReader | None = None,
        monitor: FeedMonitor | None = None,
    ) -> None:
        check_backend(opened, backend)
        plan = opened.plan
        self.monitor = monitor or FeedMonitor()
        self.budget = MemoryBudget(split)
        self._opened = opened
        self._spec_cache: Mapping[int, BatchSpec] = {}
        self._mix = plan.mix if opened.view.augment else None
        on_gpu = plan.device == "gpu"
        watchdog = Watchdog(plan.errors.max_seconds_per_file)
        shared = WorkerContext(
            opened.program,
            opened.view,
            SampleLoader(opened.index, plan.errors, watchdog),
            opened.rows,
            self.monitor,
            self.budget,
            watchdog,
            opened.annotation_kinds,
            backend=backend,
            cached=cached,
            dali_threads=num_threads if on_gpu else 1,
        )
        # On a GPU one DALI graph processes whole batches with its own threads.
        self._pool = WorkerPool(
            shared,
            num_threads=1 if on_gpu else num_threads,
            max_samples=plan.batch.size if on_gpu else min(plan.batch.size, CHUNK_IMAGES),
            sample_sizes=opened.sample_sizes,
            output_size=opened.output_size,
        )
        self._opencv_threads = SingleThreadedOpenCV()  # OpenCV's own threads would compete with the pool's

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._pool.close()
        finally:
            self._opencv_threads.release()

    def _spec(self, number: int) -> BatchSpec:
        """Return a batch's spec; the next ones are computed with it and cached."""
        specs = self._spec_cache
        if number not in specs:
            self._spec_cache = specs = self._opened.schedule.batches_from(number)
        return specs[number]

    def start(self, number: int, *, only_one: bool) -> OpenBatch | None:
        """Start a batch; returns None if the memory budget has no space, which a single batch always has."""
        return self._pool.start(number, self._spec(number), only_one=only_one)

    def finish(self, batch: OpenBatch) -> BatchResult:
        """Wait for a batch and assemble it; its memory stays reserved until ``release``."""
        spec = batch.spec
        num_made = len(spec.rows)
        try:
            finished = batch.finish()
        except LightwellError as error:
            return BatchResult(batch.number, None, entries=batch.entries(), error=error)
        entries = batch.entries()
        if finished is None:
            return BatchResult(batch.number, None, num_made, num_made, num_skipped=num_made, entries=entries)
        num_failed = int(finished.replaced.sum()) + finished.num_skipped
        if self._mix is not None:
            finished = mix_batch(
                finished, self._mix, seed=self._opened.plan.seed, bbox_params=self._opened.plan.bbox_params
            )
        if spec.has_halo:
            finished = finished.slice_rows(1, len(finished))
        return BatchResult(
            batch.number,
            finished,
            num_made,
            num_failed,
            finished.num_images,
            int(finished.is_valid.sum()),
            finished.num_skipped,
            entries,
        )

    def release(self, num_bytes: int) -> None:
        """Release the memory reserved for a batch."""
        self.budget.release_batch(num_bytes)

    @contextmanager
    def build(self, number: int) -> Iterator[BatchResult]:
        """Build one batch; other threads may build others. Its memory stays reserved for the duration of the context."""
        num_bytes = self._pool.num_bytes(spec := self._spec(number))
        self.budget.reserve_batch(num_bytes)
        batch = self._pool.begin(number, spec, num_bytes)
        try:
            yield self.finish(batch)
        finally:
            self.release(num_bytes)


def check_backend(opened: OpenView, backend: Backend) -> None:
    """Check that a backend supports a plan.

    Raises:
        PlanError: the plan has a cache and the backend does not support it.
    """
    if opened.plan.cache is not None and backend != "opencv":
        raise PlanError(
            f"cache: expected the backend opencv, got {backend}; only the CPU path caches pixels: leave cache out"
        )
