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
from itertools import islice
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
from ..plan import Plan
from ..quarantine import Quarantine, QuarantineEntry
from ..schedule import batch_specs, num_steps
from ..view import View
from .assembly import Surroundings
from .loading import SampleLoader
from .mixing import mix_batch
from .pool import CHUNK_IMAGES, AssemblyPool, OpenBatch
from .watch import Watch

DEFAULT_PREFETCH = 3


@dataclass(frozen=True)
class LocalEngine:
    """Runs plans in this process."""

    num_threads: int = 0
    """Threads that make samples, and as many that read files; 0 means one for each core."""
    prefetch: int = DEFAULT_PREFETCH
    """Batches that may lie finished before the consumer asks for them."""
    backend: Backend | None = None
    """What works on pixels; None takes DALI for plans on a GPU, OpenCV for plans on the CPU."""

    def feed(self, plan: Plan, view: View) -> LocalFeed:
        """Open the batches of a view of a plan.

        Raises:
            PlanError: the plan cannot be right.
            SourceError: the index cannot be used or has no such split.
        """
        threads = self.num_threads or os.cpu_count() or 1
        backend: Backend = self.backend or ("dali" if plan.device == "gpu" else "opencv")
        return LocalFeed(plan, view, num_threads=threads, prefetch=self.prefetch, backend=backend)


class LocalFeed:
    """Batches of one view, in order; a context manager, iterated once."""

    def __init__(
        self, plan: Plan, view: View, *, num_threads: int, prefetch: int, backend: Backend = "opencv"
    ) -> None:
        self._plan = plan
        self._view = view
        self._program = Program.compile(plan)
        self._index = plan.load_index()
        self._rows = self._index.rows(view.split) if view.keys is None else rows_of(self._index, view.keys)
        self._num_threads = num_threads
        self._prefetch = prefetch
        self._backend = backend
        self._stop = threading.Event()
        self._quarantine = Quarantine(plan.errors)
        self._quarantine_bad_headers()
        steps = num_steps(len(self._rows), plan.batch.size, drop_last=view.drop_last)
        if steps == 0:
            raise PlanError(
                f"batch.size: wanted at most {len(self._rows)} (the images of this split), got {plan.batch.size}; make it smaller"
            )
        self.num_batches = steps * view.num_epochs
        """Batches of all epochs together; ``on_error: skip`` passes over those with no image left."""

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far, as dicts."""
        return self._quarantine.dump()

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return dict(self._quarantine.counts)

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
        with self._open_pool() as pool:
            for batch in self._ahead(pool):
                finished = batch.finish()
                if finished is None:
                    continue
                yield mix_batch(finished, mix, seed=self._plan.seed) if mix else finished

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
            watch,
            backend=self._backend,
            dali_threads=self._num_threads if on_gpu else 1,
        )
        # A GPU has one graph that takes whole batches and brings its own threads.
        most = self._plan.batch.size if on_gpu else min(self._plan.batch.size, CHUNK_IMAGES)
        return AssemblyPool(shared, num_threads=1 if on_gpu else self._num_threads, max_samples=most)

    def _ahead(self, pool: AssemblyPool) -> Iterator[OpenBatch]:
        """Keep some batches in the making and yield them in order."""
        plan, view = self._plan, self._view
        specs = batch_specs(
            self._rows,
            batch_size=plan.batch.size,
            seed=plan.seed,
            epochs=range(view.first_epoch, view.first_epoch + view.num_epochs),
            shuffle=view.shuffle,
            drop_last=view.drop_last,
        )
        making: deque[OpenBatch] = deque(map(pool.start, islice(specs, self._prefetch + 1)))
        while making:
            yield making.popleft()
            if self._stop.is_set():
                return
            making.extend(map(pool.start, islice(specs, 1)))

    def _quarantine_bad_headers(self) -> None:
        """List the rows that the index already knows to be bad, once, as skipped."""
        if self._view.keys is not None:
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
