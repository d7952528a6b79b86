"""The local engine: batches made by threads of this process. It is the reference for every other engine.

    rows of the index -> bytes -> DALI, batch by batch -> Albumentations, in threads -> one normalising pass

One thread reads and decodes ahead; a pool augments and finishes; a bounded queue of batches lies between
them and the consumer. Nothing random depends on any of that (law 2).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .assembly import BatchAssembly
from .batch import Batch
from .decode.chain import DecodeChain
from .decode.dali import DaliDecoder
from .errors import PlanError, SourceError
from .index import Index
from .loading import SampleLoader
from .plan import Plan
from .program import Program
from .quarantine import Quarantine, QuarantineEntry
from .schedule import batch_specs, num_steps
from .view import View

DEFAULT_PREFETCH = 3


@dataclass(frozen=True)
class LocalEngine:
    """Runs plans in this process."""

    num_threads: int = 0
    """Threads that augment, and as many for decoding; 0 means one for each core."""
    prefetch: int = DEFAULT_PREFETCH
    """Batches that may lie finished before the consumer asks for them."""

    def feed(self, plan: Plan, view: View) -> LocalFeed:
        """Open the batches of a view of a plan.

        Raises:
            PlanError: the plan cannot be right.
            SourceError: the index cannot be used or has no such split.
        """
        threads = self.num_threads or os.cpu_count() or 1
        return LocalFeed(plan, view, num_threads=threads, prefetch=self.prefetch)


class LocalFeed:
    """Batches of one view, in order; a context manager, iterated once."""

    def __init__(self, plan: Plan, view: View, *, num_threads: int, prefetch: int) -> None:
        self._plan = plan
        self._view = view
        self._program = Program.compile(plan)
        self._index = plan.load_index()
        self._rows = self._index.rows(view.split) if view.keys is None else rows_of(self._index, view.keys)
        self._num_threads = num_threads
        self._prefetch = prefetch
        self._stop = threading.Event()
        self._quarantine = Quarantine()
        self._quarantine_bad_headers()
        steps = num_steps(len(self._rows), plan.batch.size, drop_last=view.drop_last)
        if steps == 0:
            raise PlanError(
                f"batch.size: wanted at most {len(self._rows)} (the images of this split), got {plan.batch.size}; make it smaller"
            )
        self.num_batches = steps * view.num_epochs
        """Batches of all epochs together."""

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far, as dicts."""
        return self._quarantine.dump()

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far; read = used + replaced."""
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
            RunError: neither a sample nor any of its replacements could be used.
            PlanError: the finished images of a batch differ in size.
        """
        ahead: queue.Queue[Future[Batch] | BaseException | None] = queue.Queue(maxsize=self._prefetch)
        feeder = threading.Thread(
            target=self._feed_ahead, args=(ahead,), name="lightwell-feeder", daemon=True
        )
        feeder.start()
        try:
            while (item := ahead.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item.result()
        finally:
            self.close()
            while feeder.is_alive():  # it may be waiting for room
                try:
                    ahead.get(timeout=0.05)
                except queue.Empty:
                    continue
            feeder.join()

    def _feed_ahead(self, ahead: queue.Queue[Future[Batch] | BaseException | None]) -> None:
        """Read and decode in this thread, hand the rest to the pool; pass any error on to the consumer."""
        try:
            with (
                ThreadPoolExecutor(self._num_threads, "lightwell-read") as readers,
                ThreadPoolExecutor(self._num_threads, "lightwell-augment") as pool,
            ):
                self._decode_ahead(ahead, readers, pool)
            ahead.put(None)
        except BaseException as error:
            ahead.put(error)  # it is raised again in the consumer's thread

    def _decode_ahead(
        self, ahead: queue.Queue[Future[Batch] | BaseException | None], readers: Executor, pool: Executor
    ) -> None:
        plan, view = self._plan, self._view
        cv2.setNumThreads(1)  # the pool is the parallelism; OpenCV's own threads would fight it
        loader = SampleLoader(self._index)
        assembly = BatchAssembly(self._program, view, loader, self._rows, self._quarantine)
        size = min(plan.batch.size, len(self._rows))
        specs = batch_specs(
            self._rows,
            batch_size=plan.batch.size,
            seed=plan.seed,
            epochs=range(view.first_epoch, view.first_epoch + view.num_epochs),
            shuffle=view.shuffle,
            drop_last=view.drop_last,
        )
        chain = DecodeChain(
            DaliDecoder(max_batch_size=size, num_threads=self._num_threads, device=plan.device)
        )
        try:
            for spec in specs:
                if self._stop.is_set():
                    break
                loaded = loader.load_batch(spec, chain, readers)
                ahead.put(pool.submit(assembly.assemble, spec, loaded))
        finally:
            chain.close()

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
