"""Thread pools of the local engine: read and process the chunks of several batches concurrently."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from ..batch.annotations import AnnotationKinds, Annotations, collate_annotations, collate_label_sets
from ..batch.batch import Batch
from ..batch.buffers import BatchBuffer, BufferPool, DeviceBuffer, Normalizer
from ..executor.sample_worker import Sample, SampleWorker, WorkerContext
from ..load.loader import EncodedSample
from ..memory.estimates import OutputSize, SampleSizes, split_by_bytes
from ..monitor.quarantine import QuarantineEntry
from ..monitor.watchdog import Watchdog
from ..sampler.schedule import BatchSpec

if TYPE_CHECKING:
    import torch

CHUNK_IMAGES = 32
"""Samples per chunk: enough for DALI, few enough to split a batch among threads."""
CACHED_CHUNK_IMAGES = 64
"""The same for cached samples, which are so fast that scheduling overhead matters."""


@dataclass(frozen=True, slots=True)
class _ChunkTarget:
    """Destination of a chunk."""

    epoch: int
    first: int
    """Row of its first sample in the batch."""
    buffer: BatchBuffer | DeviceBuffer
    failures: list[QuarantineEntry]
    """Filled with the samples that could not be used."""


@dataclass(slots=True)
class _SampleColumns:
    """Values of a chunk's samples, without pixels, stored by column."""

    made: list[bool] = field(default_factory=list)
    """Whether each sample was made; the columns below contain only those."""
    keys: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    label_sets: list[Sequence[int] | None] = field(default_factory=list)
    replaced: list[bool] = field(default_factory=list)
    annotations: list[Annotations] = field(default_factory=list)

    def add(self, sample: Sample | None) -> None:
        """Append a sample, or None for a skipped one."""
        self.made.append(sample is not None)
        if sample is None:
            return
        self.keys.append(sample.key)
        self.labels.append(sample.label)
        self.label_sets.append(sample.labels)
        self.replaced.append(sample.replaced)
        self.annotations.append(sample.annotations)

    def __iadd__(self, other: _SampleColumns) -> _SampleColumns:
        """Append another chunk's samples."""
        for name in ("made", "keys", "labels", "label_sets", "replaced", "annotations"):
            getattr(self, name).extend(getattr(other, name))
        return self


@dataclass(frozen=True)
class OpenBatch:
    """A batch in progress."""

    number: int
    spec: BatchSpec
    buffer: BatchBuffer | DeviceBuffer
    chunks: tuple[Future[_SampleColumns], ...]
    failures: tuple[list[QuarantineEntry], ...]
    """Samples that could not be used, per chunk."""
    watchdog: Watchdog
    annotation_kinds: AnnotationKinds
    """Kinds of annotations in the index."""
    num_bytes: int
    """Estimated size of its rows."""

    def wait(self) -> None:
        """Wait until all chunks have succeeded or failed.

        Raises:
            SampleTimeoutError: a file never comes to an end.
        """
        self.watchdog.wait_for_all(self.chunks)

    def entries(self) -> tuple[QuarantineEntry, ...]:
        """Return the samples so far that could not be used, in row order."""
        return tuple(entry for chunk in self.failures for entry in chunk)

    def finish(self) -> Batch | None:
        """Assemble the batch; None if all images were skipped."""
        import torch

        rows = _SampleColumns()
        for chunk in self.chunks:
            rows += self.watchdog.wait_for(chunk)
        if not rows.keys:
            return None
        num_images = len(rows.keys)
        images = _select_rows(self.buffer.tensor(), rows.made)
        height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
        num_classes = self.annotation_kinds.num_set_classes
        return Batch(
            images=images,
            labels=torch.tensor(rows.labels, dtype=torch.int64),
            keys=tuple(rows.keys),
            epoch=self.spec.epoch,
            step=self.spec.step,
            replaced=np.array(rows.replaced, dtype=bool),
            padding=self.spec.padding[rows.made],
            num_skipped=len(rows.made) - num_images,
            label_sets=collate_label_sets(rows.label_sets, num_classes) if num_classes else None,
            **collate_annotations(rows.annotations, self.annotation_kinds, (height, width)),
        )


def _select_rows(images: torch.Tensor, made: Sequence[bool]) -> torch.Tensor:
    """Select the rows of the samples that were made, in the same memory layout."""
    import torch

    if all(made):
        return images
    rows = [row for row, is_there in enumerate(made) if is_there]
    kept = images[torch.tensor(rows, device=images.device)]
    if images.dtype == torch.uint8:
        return kept
    return kept.contiguous(memory_format=torch.channels_last)


class WorkerPool:
    """Pools of reader and worker threads; end them with ``close``. Any thread may start batches."""

    def __init__(
        self,
        shared: WorkerContext,
        *,
        num_threads: int,
        max_samples: int,
        sample_sizes: SampleSizes,
        output_size: OutputSize,
    ) -> None:
        self._shared = shared
        self._max_samples = max_samples
        self._sample_sizes = sample_sizes
        self._output_size = output_size
        split = shared.budget.split
        self._most_pixels = max(1, split.pixels // num_threads)
        self._most_files = max(1, split.files // (2 * num_threads))
        self._tickets = count()
        self._buffers = BufferPool()
        normalization = shared.program.normalization
        self._normalizer = None if normalization is None else Normalizer(normalization)
        self._device = _device_of(shared)
        self._readers = ThreadPoolExecutor(num_threads, "lightwell-read")
        self._workers = ThreadPoolExecutor(num_threads, "lightwell-make")
        self._local = threading.local()
        self._starting = threading.Lock()
        self._sample_workers: list[SampleWorker] = []
        self._epoch: int | None = None
        self._cache_writers: list[Future[_SampleColumns]] = []
        """Chunks of this epoch that may write to the cache: those in progress, and the last ones."""

    def close(self) -> None:
        """End the threads after the chunks in progress."""
        timed_out = self._shared.watchdog.timed_out  # do not wait for a stuck thread, nor free what it uses
        self._shared.budget.close()
        self._shared.loader.close()
        self._readers.shutdown(wait=not timed_out, cancel_futures=True)
        self._workers.shutdown(wait=not timed_out, cancel_futures=True)
        for sample_worker in () if timed_out else self._sample_workers:
            sample_worker.close()
        if self._shared.cached is not None:
            self._shared.cached.cache.close()

    def num_bytes(self, spec: BatchSpec) -> int:
        """Estimate the size of a batch's rows."""
        return self._output_size.bytes(self._sample_sizes.pixels(spec.rows))

    def start(self, number: int, spec: BatchSpec, *, only_one: bool) -> OpenBatch | None:
        """Start a batch; returns None if the memory budget has no space, which a single batch always has."""
        num_bytes = self.num_bytes(spec)
        if not self._shared.budget.try_reserve_batch(num_bytes, only_one=only_one):
            return None
        return self.begin(number, spec, num_bytes)

    def begin(self, number: int, spec: BatchSpec, num_bytes: int) -> OpenBatch:
        """Start a batch whose memory is already reserved."""
        with self._starting:
            self._start_epoch(spec.epoch)
            buffer = self._open_buffer(len(spec.rows))
            chunks: list[Future[_SampleColumns]] = []
            targets: list[_ChunkTarget] = []
            first = 0
            cached = self._shared.cached
            is_cached = cached is not None and cached.contains(spec.rows)
            for rows, file_bytes in self._split_into_chunks(
                spec.rows, CACHED_CHUNK_IMAGES if is_cached else self._max_samples
            ):
                targets.append(_ChunkTarget(spec.epoch, first, buffer, []))
                first += len(rows)
                if is_cached:
                    chunks.append(self._workers.submit(self._make_cached, rows, targets[-1]))
                else:
                    loaded = self._readers.submit(self._read_chunk, next(self._tickets), rows, file_bytes)
                    chunks.append(self._workers.submit(self._make_chunk, loaded, file_bytes, targets[-1]))
            if cached is not None and not is_cached:
                self._cache_writers = [*(one for one in self._cache_writers if not one.done()), *chunks]
        failures = tuple(one.failures for one in targets)
        shared = self._shared
        return OpenBatch(
            number, spec, buffer, tuple(chunks), failures, shared.watchdog, shared.kinds, num_bytes
        )

    def _start_epoch(self, epoch: int) -> None:
        """Before a new epoch, wait until all cache writes of the previous one are published."""
        if epoch != self._epoch and self._cache_writers and self._shared.cached is not None:
            self._shared.watchdog.wait_for_all(self._cache_writers)
            self._shared.cached.cache.publish()
            self._cache_writers = []
        self._epoch = epoch

    def _split_into_chunks(self, rows: np.ndarray, most: int) -> Iterator[tuple[np.ndarray, int]]:
        """Split a batch into chunks by number of samples, and by bytes if files are large."""
        for start in range(0, len(rows), most):
            some = rows[start : start + most]
            sample_sizes = self._sample_sizes.bytes(some).tolist()
            for run, num_bytes in split_by_bytes(
                range(len(some)), sample_sizes.__getitem__, self._most_files
            ):
                yield some[run[0] : run[-1] + 1], num_bytes

    def _read_chunk(self, ticket: int, rows: np.ndarray, num_bytes: int) -> list[EncodedSample]:
        monitor = self._shared.monitor
        timer = monitor.timer("read")
        timer.enter("output")
        self._shared.budget.reserve_file(ticket, num_bytes)
        timer.enter("read")
        read_bytes = 0
        try:
            loaded, read_bytes = self._load(rows)
            return loaded
        finally:
            monitor.chunks.change(1)
            timer.enter("output", read_bytes)

    def _load(self, rows: np.ndarray) -> tuple[list[EncodedSample], int]:
        """Return samples and the bytes of the files that were read for them."""
        loaded = self._shared.load(rows)
        self._shared.monitor.count_cache_hits(sum(sample.cached_image is not None for sample in loaded))
        return loaded, sum(len(sample.file.data) for sample in loaded if sample.file is not None)

    def _open_buffer(self, num_images: int) -> BatchBuffer | DeviceBuffer:
        if self._device is None:
            return BatchBuffer(num_images, self._normalizer, self._buffers)
        return DeviceBuffer(num_images, self._shared.program.normalization, self._device)

    def _make_chunk(
        self,
        loaded: Future[list[EncodedSample]],
        file_bytes: int,
        target: _ChunkTarget,
    ) -> _SampleColumns:
        timer = self._shared.monitor.timer("process")
        timer.enter("input")
        try:
            samples = loaded.result()
            self._shared.monitor.chunks.change(-1)
            timer.enter("sample")
            return self._make_samples(samples, target)
        finally:
            self._shared.budget.release_file(file_bytes)
            timer.enter("output")

    def _make_cached(self, rows: np.ndarray, target: _ChunkTarget) -> _SampleColumns:
        """Process cached samples without a reader thread; the few that are damaged or have changed are read here."""
        timer = self._shared.monitor.timer("process")
        timer.enter("lookup")
        read_bytes = 0
        try:
            samples, read_bytes = self._load(rows)
            self._shared.budget.add_file(read_bytes)
            timer.enter("sample", read_bytes)
            return self._make_samples(samples, target)
        finally:
            self._shared.budget.release_file(read_bytes)
            timer.enter("output")

    def _make_samples(self, samples: list[EncodedSample], target: _ChunkTarget) -> _SampleColumns:
        timer = self._shared.monitor.timer("process")
        if not hasattr(self._local, "sample_worker"):
            most = (
                self._max_samples
                if self._shared.cached is None
                else max(self._max_samples, CACHED_CHUNK_IMAGES)
            )
            self._local.sample_worker = SampleWorker(self._shared, max_samples=most)
            self._sample_workers.append(self._local.sample_worker)
        sample_worker: SampleWorker = self._local.sample_worker
        done = _SampleColumns()
        for run, most_bytes in sample_worker.split_by_bytes(samples, target.epoch, self._most_pixels):
            timer.enter("output")
            with self._shared.budget.pixels(most_bytes, repr(run[0].row["key"])):
                start = target.first + len(done.made)
                slots = [partial(target.buffer.output_slot, row) for row in range(start, start + len(run))]
                made = sample_worker.process(run, target.epoch, slots, target.failures)
                timer.enter("write")
                num_bytes = 0
                for row, sample in enumerate(made, start):
                    if sample is not None:
                        target.buffer.put(row, sample.key, sample.image)
                        num_bytes += sample.image.nbytes
                    done.add(sample)
                target.buffer.synchronize()
                timer.enter("sample", num_bytes)
                del made, sample  # no image may outlive its budget reservation
        return done


def _device_of(shared: WorkerContext) -> str | None:
    """Return the torch device on which batches are assembled: the GPU if no step runs on the host."""
    if shared.backend != "dali" or shared.program.plan.device != "gpu":
        return None
    routes = shared.program.routes(augment=shared.view.augment, backend="dali")
    return "cuda:0" if routes.num_lowered == len(routes.routes) else None
