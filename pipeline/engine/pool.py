"""The threads of the local engine: they fetch and make the chunks of several batches at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Self

import numpy as np

from ..batch import Batch
from ..schedule import BatchSpec
from .assembly import Assembly, Finished, Surroundings
from .buffers import BatchBuffer, BufferPool, DeviceBuffer, Normalizer
from .estimates import FinishedSize, SampleSizes, in_runs
from .loading import Loaded

CHUNK_IMAGES = 32
"""Samples that one thread makes at a time: many enough for DALI, few enough to share a batch among threads."""


@dataclass(frozen=True)
class OpenBatch:
    """A batch in the making."""

    spec: BatchSpec
    buffer: BatchBuffer | DeviceBuffer
    chunks: tuple[Future[list[Finished]], ...]
    num_bytes: int
    """That its rows are reckoned to take."""

    def wait(self) -> None:
        """Wait for its chunks."""
        for chunk in self.chunks:
            chunk.result()

    def finish(self) -> Batch:
        """Put it together."""
        import torch

        done = [sample for chunk in self.chunks for sample in chunk.result()]
        masks = [sample.mask for sample in done if sample.mask is not None]
        boxes = [sample.boxes for sample in done if sample.boxes is not None]
        return Batch(
            images=self.buffer.tensor(),
            labels=torch.tensor([sample.label for sample in done], dtype=torch.int64),
            keys=tuple(sample.key for sample in done),
            epoch=self.spec.epoch,
            step=self.spec.step,
            replaced=np.array([sample.replaced for sample in done], dtype=bool),
            padding=self.spec.padding,
            masks=torch.from_numpy(np.stack(masks)) if len(masks) == len(done) else None,
            boxes=tuple(boxes) if len(boxes) == len(done) else None,
        )


class AssemblyPool:
    """Reading threads and making threads; a context manager. One thread starts batches."""

    def __init__(
        self,
        shared: Surroundings,
        *,
        num_threads: int,
        max_samples: int,
        sizes: SampleSizes,
        finished: FinishedSize,
    ) -> None:
        self._shared = shared
        self._max_samples = max_samples
        self._sizes = sizes
        self._finished = finished
        shares = shared.budget.shares
        self._most_pixels = max(1, shares.pixels // num_threads)
        self._most_files = max(1, shares.files // (2 * num_threads))
        self._tickets = count()
        self._buffers = BufferPool()
        normalization = shared.program.normalization
        self._normalizer = None if normalization is None else Normalizer(normalization)
        self._device = _device_of(shared)
        self._readers = ThreadPoolExecutor(num_threads, "lightwell-read")
        self._makers = ThreadPoolExecutor(num_threads, "lightwell-make")
        self._own = threading.local()
        self._assemblies: list[Assembly] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shared.budget.close()
        self._readers.shutdown(cancel_futures=True)
        self._makers.shutdown(cancel_futures=True)
        for assembly in self._assemblies:
            assembly.close()

    def start(self, spec: BatchSpec, *, only_one: bool) -> OpenBatch | None:
        """Begin a batch; None where there is no room for it, which the only one in the making always has."""
        num_bytes = self._finished.bytes(self._sizes.pixels[spec.rows])
        if not self._shared.budget.open_batch(num_bytes, only_one=only_one):
            return None
        buffer = self._open_buffer(len(spec.rows))
        chunks = []
        first = 0
        for rows, file_bytes in self._cut(spec.rows):
            loaded = self._readers.submit(self._read, next(self._tickets), rows, file_bytes)
            chunks.append(self._makers.submit(self._make, loaded, file_bytes, spec.epoch, first, buffer))
            first += len(rows)
        return OpenBatch(spec, buffer, tuple(chunks), num_bytes)

    def _cut(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
        """Cut a batch into chunks: by number, and where files are large by their bytes."""
        for start in range(0, len(rows), self._max_samples):
            some = rows[start : start + self._max_samples]
            sizes = self._sizes.bytes[some].tolist()
            for run, num_bytes in in_runs(range(len(some)), sizes.__getitem__, self._most_files):
                yield some[run[0] : run[-1] + 1], num_bytes

    def _read(self, ticket: int, rows: np.ndarray, num_bytes: int) -> list[Loaded]:
        activity = self._shared.activity
        clock = activity.clock("read")
        clock.enter("room")
        self._shared.budget.wait_for_file(ticket, num_bytes)
        clock.enter("read")
        try:
            return self._shared.loader.load(rows)
        finally:
            activity.chunks.change(1)
            clock.enter("room", num_bytes)

    def _open_buffer(self, num_images: int) -> BatchBuffer | DeviceBuffer:
        if self._device is None:
            return BatchBuffer(num_images, self._normalizer, self._buffers)
        return DeviceBuffer(num_images, self._shared.program.normalization, self._device)

    def _make(
        self,
        loaded: Future[list[Loaded]],
        file_bytes: int,
        epoch: int,
        first: int,
        buffer: BatchBuffer | DeviceBuffer,
    ) -> list[Finished]:
        clock = self._shared.activity.clock("make")
        clock.enter("input")
        try:
            samples = loaded.result()
            self._shared.activity.chunks.change(-1)
            clock.enter("draw")
            return self._make_runs(samples, epoch, first, buffer)
        finally:
            self._shared.budget.close_file(file_bytes)
            clock.enter("room")

    def _make_runs(
        self, samples: list[Loaded], epoch: int, first: int, buffer: BatchBuffer | DeviceBuffer
    ) -> list[Finished]:
        clock = self._shared.activity.clock("make")
        if not hasattr(self._own, "assembly"):
            self._own.assembly = Assembly(self._shared, max_samples=self._max_samples)
            self._assemblies.append(self._own.assembly)
        assembly: Assembly = self._own.assembly
        done: list[Finished] = []
        for run, num_bytes in assembly.in_runs(samples, epoch, self._most_pixels):
            clock.enter("room")
            with self._shared.budget.pixels(num_bytes, repr(run[0].row["key"])):
                made = assembly.make(run, epoch)
                clock.enter("write")
                for row, sample in enumerate(made, first + len(done)):
                    buffer.put(row, sample.key, sample.image)
                buffer.settle()
                clock.enter("draw", sum(sample.image.nbytes for sample in made))
                done += [sample.without_pixels() for sample in made]
                del made, sample  # not one picture may outlast its room
        return done


def _device_of(shared: Surroundings) -> str | None:
    """Say on which device of torch batches are put together: a GPU where nothing is left to do on the host."""
    if shared.backend != "dali" or shared.program.plan.device != "gpu":
        return None
    routes = shared.program.routes(augment=shared.view.augment, backend="dali")
    return "cuda:0" if routes.num_lowered == len(routes.routes) else None
