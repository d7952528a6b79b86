"""The local engine: batches made by threads of this process. It is the reference for every other engine.

    rows of the index -> bytes -> a pool: draw, decode, transform, normalise into the batch's rows -> batch

A batch is cut into chunks. Reading threads fetch a chunk's files; one thread of the pool then makes its samples
from start to end, so that what was decoded is still in its cache when it is augmented. A few batches are in the
making at once and are yielded in order. Nothing random depends on any of that (law 2).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..batch import Batch
from ..compiler.program import Program
from ..compiler.routing import Backend
from ..dataset.index import Index
from ..errors import PlanError, SourceError
from ..order.position import batches_before, position_after
from ..plan import Plan
from ..quarantine import Quarantine, QuarantineEntry
from ..schedule import Schedule
from ..view import View
from .assembly import Surroundings
from .cached import CachedReading
from .clocks import Activity
from .estimates import SampleSizes, finished_size
from .loading import SampleLoader
from .machine import default_memory_bytes
from .memory import MemoryBudget, cut
from .mixing import mix_batch
from .pool import CHUNK_IMAGES, AssemblyPool, OpenBatch
from .stats import FeedStats
from .watch import Watch

DEFAULT_PREFETCH = 3


@dataclass(frozen=True)
class LocalEngine:
    """Runs plans in this process."""

    num_threads: int = 0
    """Threads that make samples, and as many that read files; 0 means one for each core."""
    prefetch: int = DEFAULT_PREFETCH
    """Batches that may lie finished before the consumer asks for them."""
    memory_bytes: int = 0
    """What may be in flight: files, pixels and finished batches; see ``memory``. 0 means a quarter of what this process
    may have."""
    backend: Backend | None = None
    """What works on pixels; None takes DALI for plans on a GPU, OpenCV for plans on the CPU."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> LocalFeed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: the plan or the view cannot be right, or the position is of another.
            SourceError: the index cannot be used or has no such split.
        """
        threads = self.num_threads or os.cpu_count() or 1
        backend: Backend = self.backend or ("dali" if plan.device == "gpu" else "opencv")
        return LocalFeed(
            plan,
            view,
            position,
            num_threads=threads,
            prefetch=self.prefetch,
            backend=backend,
            memory_bytes=self.memory_bytes or default_memory_bytes(),
        )


class LocalFeed:
    """Batches of one view, in order; a context manager. Iterating again goes on where the consumer stands."""

    def __init__(
        self,
        plan: Plan,
        view: View,
        position: Mapping[str, Any] | None = None,
        *,
        num_threads: int,
        prefetch: int,
        memory_bytes: int,
        backend: Backend = "opencv",
    ) -> None:
        self._plan = plan
        self._view = view
        self._program = Program.compile(plan)
        self._index = plan.load_index()
        self._rows = self._index.rows(view.split) if view.keys is None else rows_of(self._index, view.keys)
        self._num_threads = num_threads
        chunks = -(-plan.batch.size // CHUNK_IMAGES)
        self._prefetch = max(prefetch, -(-2 * num_threads // chunks))  # small batches keep many threads busy
        self._backend = backend
        if plan.cache is not None and backend != "opencv":
            raise PlanError(
                f"cache: wanted the backend opencv, got {backend}; pixels are cached on the CPU's way only: leave cache out"
            )
        self._stop = threading.Event()
        self._quarantine = Quarantine(plan.errors)
        self._quarantine_bad_headers()
        self._schedule = Schedule.of(plan, view, self._index, self._rows)
        self._next = 0
        """Number of the batch that the consumer has not had yet."""
        if position is not None:
            steps = self._schedule.num_steps
            self._next = batches_before(position, view, plan=self._fingerprint, num_steps=steps)
        self.num_batches = self._schedule.num_batches - self._next
        """Batches of all epochs together, from where the feed was opened; ``on_error: skip`` passes over those with
        no image left."""
        self._cached = CachedReading.open(self._program, self._index)
        self._sizes = SampleSizes.of(self._index)
        self._finished = finished_size(self._program, view, self._index, self._rows)
        self._shares = cut(memory_bytes, batch_bytes=self._largest_batch_bytes(), prefetch=self._prefetch)
        self._begin()

    def _begin(self) -> None:
        self._activity = Activity()
        self._budget = MemoryBudget(self._shares)

    @cached_property
    def _fingerprint(self) -> str:
        return self._plan.fingerprint(self._index)

    def position(self) -> dict[str, Any]:
        """Say where the consumer stands: behind the last batch it was given. A small value that JSON holds."""
        epoch, step = self._schedule.place_of(self._next)
        return position_after(self._view, plan=self._fingerprint, epoch=epoch, step=step)

    @property
    def cache_counts(self) -> dict[str, int]:
        """Pictures found in the cache, missed and kept so far, and damaged shards; empty without a cache."""
        return {} if self._cached is None else self._cached.cache.dump_counts()

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far, as dicts."""
        return self._quarantine.dump()

    @property
    def counts(self) -> dict[str, int]:
        """Images yielded, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return dict(self._quarantine.counts)

    def stats(self) -> FeedStats:
        """Say where the time went so far and what was in flight."""
        return self._activity.read(
            num_threads=self._num_threads,
            replaced=self._quarantine.counts["replaced"],
            memory_bytes=self._budget.shares.total,
            peak_bytes=self._budget.peak_bytes,
        )

    def __enter__(self) -> LocalFeed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading ahead; a feed that is iterated to its end closes itself."""
        self._stop.set()

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches.

        Raises:
            RunError: neither a sample nor any of its replacements could be used, or more are bad than the plan bears.
            SampleError: a sample cannot be used and the plan says ``on_error: raise``.
            SourceDownError: a remote source gives no answer.
            StuckError: a file never comes to an end.
            PlanError: the finished images of a batch differ in size.
        """
        cv2.setNumThreads(1)  # the pool is the parallelism; OpenCV's own threads would fight it
        mix = self._plan.mix if self._view.augment else None
        self._begin()
        self._activity.start()
        clock = self._activity.clock("consume")
        try:
            with self._open_pool() as pool:
                for batch in self._ahead(pool):
                    clock.enter("input")
                    batch.wait()
                    clock.enter("batch")
                    num_bytes, spec = batch.num_bytes, batch.spec
                    finished = batch.finish()
                    del batch  # its buffer is free once the consumer has let it go
                    self._judge(finished, num_made=len(spec.rows))
                    self._next += 1
                    if finished is None:
                        self._quarantine.count(skipped=len(spec.rows))
                        self._budget.close_batch(num_bytes)
                        continue
                    if mix is not None:
                        finished = mix_batch(finished, mix, seed=self._plan.seed)
                    if spec.lends:
                        finished = finished.between(1, len(finished))
                    self._count(finished)
                    clock.enter("consumer")
                    yield finished
                    clock.enter("batch")
                    del finished
                    self._budget.close_batch(num_bytes)
        finally:
            self._activity.stop()

    def _judge(self, batch: Batch | None, *, num_made: int) -> None:
        """Stop where too much is bad; in the order of the batches, so that no thread decides where."""
        num_failed = num_made if batch is None else int(batch.replaced.sum()) + batch.num_left_out
        self._quarantine.judge(made=num_made, failed=num_failed)

    def _count(self, batch: Batch) -> None:
        used, read = int(batch.own.sum()), batch.num_images
        self._quarantine.count(read=read, used=used, replaced=read - used, skipped=batch.num_left_out)
        self._activity.give_out(read)

    def _open_pool(self) -> AssemblyPool:
        on_gpu = self._plan.device == "gpu"
        errors = self._plan.errors
        watch = Watch(errors.max_seconds_per_file)
        shared = Surroundings(
            self._program,
            self._view,
            SampleLoader(self._index, errors, watch),
            self._rows,
            self._quarantine,
            self._activity,
            self._budget,
            watch,
            backend=self._backend,
            cached=self._cached,
            dali_threads=self._num_threads if on_gpu else 1,
        )
        # A GPU has one graph that takes whole batches and brings its own threads.
        most = self._plan.batch.size if on_gpu else min(self._plan.batch.size, CHUNK_IMAGES)
        return AssemblyPool(
            shared,
            num_threads=1 if on_gpu else self._num_threads,
            max_samples=most,
            sizes=self._sizes,
            finished=self._finished,
        )

    def _ahead(self, pool: AssemblyPool) -> Iterator[OpenBatch]:
        """Keep some batches in the making and yield them in order."""
        specs = self._schedule.batches(self._next)
        making: deque[OpenBatch] = deque()
        waiting = next(specs, None)
        while True:
            while waiting is not None and len(making) <= self._prefetch:
                batch = pool.start(waiting, only_one=not making)
                if batch is None:
                    break
                making.append(batch)
                self._activity.batches.change(1)
                waiting = next(specs, None)
            if not making or self._stop.is_set():
                return
            yield making.popleft()
            self._activity.batches.change(-1)

    def _largest_batch_bytes(self) -> int:
        """Bound what the rows of a batch take, from the largest pictures of the view."""
        pixels = self._sizes.pixels[self._rows]
        size = min(self._plan.batch.size, len(pixels))
        return self._finished.bytes(np.partition(pixels, len(pixels) - size)[len(pixels) - size :])

    def _quarantine_bad_headers(self) -> None:
        """List the rows that the index already knows to be bad, once, as skipped; of several ranks, by the first."""
        if self._view.keys is not None or self._view.rank:
            return
        table = self._index.table
        bad = table.filter(pc.not_equal(table["status"], "ok"))
        if self._view.split is not None:
            bad = bad.filter(pc.equal(bad["split"], self._view.split))
        for row in bad.select(["key", "uri", "status"]).to_pylist():
            self._quarantine.add(
                QuarantineEntry(
                    row["key"], row["uri"], "index", row["status"], "", None, self._view.first_epoch
                )
            )
        self._quarantine.count(skipped=len(bad))


def rows_of(index: Index, keys: tuple[str, ...]) -> np.ndarray:
    """Find the row numbers of some keys, in their order.

    Raises:
        SourceError: the index lacks a key.
    """
    rows = pc.index_in(pa.array(keys, pa.string()), value_set=index.table["key"].combine_chunks())
    if rows.null_count:
        missing = next(key for key, row in zip(keys, rows.to_pylist(), strict=True) if row is None)
        raise SourceError(f"view.keys: wanted keys of the index, got {missing!r}; it is not in it")
    return np.asarray(rows.to_numpy(), dtype=np.int64)
