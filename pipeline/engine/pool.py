"""The threads of the local engine: they fetch and make the chunks of several batches at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from ..batch import Batch
from ..schedule import BatchSpec
from .assembly import Assembly, Finished, Surroundings
from .buffers import BatchBuffer, BufferPool, DeviceBuffer, Normalizer
from .loading import Loaded

CHUNK_IMAGES = 32
"""Samples that one thread makes at a time: many enough for DALI, few enough to share a batch among threads."""


@dataclass(frozen=True)
class OpenBatch:
    """A batch in the making."""

    spec: BatchSpec
    buffer: BatchBuffer | DeviceBuffer
    chunks: tuple[Future[list[Finished]], ...]

    def finish(self) -> Batch:
        """Wait for its chunks and put it together."""
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

    def __init__(self, shared: Surroundings, *, num_threads: int, max_samples: int) -> None:
        self._shared = shared
        self._max_samples = max_samples
        self._buffers = BufferPool()
        normalization = shared.program.normalization
        self._normalizer = None if normalization is None else Normalizer(normalization)
        self._device = _device_of(shared)
        self._readers = ThreadPoolExecutor(num_threads, "lightwell-read")
        self._makers = ThreadPoolExecutor(num_threads, "lightwell-make")
        self._own = threading.local()
        self._assemblies: list[Assembly] = []
        self._epoch: int | None = None
        self._unfinished: list[Future[list[Finished]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._makers.shutdown(cancel_futures=True)
        for assembly in self._assemblies:
            assembly.close()
        if self._shared.cached is not None:
            self._shared.cached.cache.close()
            self._shared.cached.cache.tell()

    def start(self, spec: BatchSpec) -> OpenBatch:
        """Begin a batch."""
        self._turn_to(spec.epoch)
        buffer = self._open_buffer(len(spec.rows))
        chunks = []
        for first in range(0, len(spec.rows), self._max_samples):
            rows = spec.rows[first : first + self._max_samples]
            loaded = self._readers.submit(self._shared.load, rows)
            chunks.append(self._makers.submit(self._make, loaded, spec.epoch, first, buffer))
        if self._shared.cached is not None:
            self._unfinished = [one for one in (*self._unfinished, *chunks) if not one.done()]
        return OpenBatch(spec, buffer, tuple(chunks))

    def _turn_to(self, epoch: int) -> None:
        """Let an epoch find all that the one before has cached: wait until it is made and written."""
        if self._shared.cached is None:
            return
        self._shared.cached.cache.tell()
        if epoch != self._epoch and self._epoch is not None:
            wait(self._unfinished)
            self._shared.cached.cache.publish()
        self._epoch = epoch

    def _open_buffer(self, num_images: int) -> BatchBuffer | DeviceBuffer:
        if self._device is None:
            return BatchBuffer(num_images, self._normalizer, self._buffers)
        return DeviceBuffer(num_images, self._shared.program.normalization, self._device)

    def _make(
        self, loaded: Future[list[Loaded]], epoch: int, first: int, buffer: BatchBuffer | DeviceBuffer
    ) -> list[Finished]:
        if not hasattr(self._own, "assembly"):
            self._own.assembly = Assembly(self._shared, max_samples=self._max_samples)
            self._assemblies.append(self._own.assembly)
        made: list[Finished] = self._own.assembly.make(loaded.result(), epoch)
        for row, sample in enumerate(made, first):
            buffer.put(row, sample.key, sample.image)
        buffer.settle()
        return [sample.without_pixels() for sample in made]


def _device_of(shared: Surroundings) -> str | None:
    """Say on which device of torch batches are put together: a GPU where nothing is left to do on the host."""
    if shared.backend != "dali" or shared.program.plan.device != "gpu":
        return None
    routes = shared.program.routes(augment=shared.view.augment, backend="dali")
    return "cuda:0" if routes.num_lowered == len(routes.routes) else None
