"""The threads of the local engine: they fetch and make the chunks of several batches at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from ..batch import Batch
from ..quarantine import QuarantineEntry
from ..schedule import BatchSpec
from .assembly import Assembly, Finished, Surroundings
from .buffers import BatchBuffer, BufferPool, DeviceBuffer, Normalizer
from .estimates import FinishedSize, SampleSizes, in_runs
from .loading import Loaded
from .watch import Watch

if TYPE_CHECKING:
    import torch

CHUNK_IMAGES = 32
"""Samples that one thread makes at a time: many enough for DALI, few enough to share a batch among threads."""


@dataclass(frozen=True)
class OpenBatch:
    """A batch in the making."""

    number: int
    spec: BatchSpec
    buffer: BatchBuffer | DeviceBuffer
    chunks: tuple[Future[list[Finished | None]], ...]
    noted: tuple[list[QuarantineEntry], ...]
    """What each chunk could not use."""
    watch: Watch
    num_bytes: int
    """That its rows are reckoned to take."""

    def wait(self) -> None:
        """Wait until its chunks have ended, well or not.

        Raises:
            StuckError: a file never comes to an end.
        """
        self.watch.wait_for_all(self.chunks)

    def entries(self) -> tuple[QuarantineEntry, ...]:
        """List what could not be used so far, in the order of the rows."""
        return tuple(entry for chunk in self.noted for entry in chunk)

    def finish(self) -> Batch | None:
        """Put it together; None where every image was left out."""
        import torch

        made = [sample for chunk in self.chunks for sample in self.watch.wait_for(chunk)]
        done = [sample for sample in made if sample is not None]
        if not done:
            return None
        masks = [sample.mask for sample in done if sample.mask is not None]
        boxes = [sample.boxes for sample in done if sample.boxes is not None]
        return Batch(
            images=_kept_rows(self.buffer.tensor(), made),
            labels=torch.tensor([sample.label for sample in done], dtype=torch.int64),
            keys=tuple(sample.key for sample in done),
            epoch=self.spec.epoch,
            step=self.spec.step,
            replaced=np.array([sample.replaced for sample in done], dtype=bool),
            padding=self.spec.padding[[sample is not None for sample in made]],
            masks=torch.from_numpy(np.stack(masks)) if len(masks) == len(done) else None,
            boxes=tuple(boxes) if len(boxes) == len(done) else None,
            num_left_out=len(made) - len(done),
        )


def _kept_rows(images: torch.Tensor, made: Sequence[Finished | None]) -> torch.Tensor:
    """Take the rows of samples that were not left out, in the same layout of memory."""
    import torch

    rows = [row for row, sample in enumerate(made) if sample is not None]
    if len(rows) == len(made):
        return images
    kept = images[torch.tensor(rows, device=images.device)]
    if images.dtype == torch.uint8:
        return kept
    return kept.contiguous(memory_format=torch.channels_last)


class AssemblyPool:
    """Reading threads and making threads; leave them with ``close``. Any thread may start batches."""

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
        self._starting = threading.Lock()
        self._assemblies: list[Assembly] = []
        self._epoch: int | None = None
        self._unfinished: list[Future[list[Finished | None]]] = []

    def close(self) -> None:
        """End the threads, once what is under way is made."""
        stuck = self._shared.watch.stuck  # then nobody waits for the thread, nor takes away what it holds
        self._shared.budget.close()
        self._shared.loader.close()
        self._readers.shutdown(wait=not stuck, cancel_futures=True)
        self._makers.shutdown(wait=not stuck, cancel_futures=True)
        for assembly in () if stuck else self._assemblies:
            assembly.close()
        if self._shared.cached is not None:
            self._shared.cached.cache.close()

    def num_bytes(self, spec: BatchSpec) -> int:
        """Reckon what the rows of a batch will take."""
        return self._finished.bytes(self._sizes.pixels[spec.rows])

    def start(self, number: int, spec: BatchSpec, *, only_one: bool) -> OpenBatch | None:
        """Begin a batch; None where there is no room for it, which the only one in the making always has."""
        num_bytes = self.num_bytes(spec)
        if not self._shared.budget.open_batch(num_bytes, only_one=only_one):
            return None
        return self.begin(number, spec, num_bytes)

    def begin(self, number: int, spec: BatchSpec, num_bytes: int) -> OpenBatch:
        """Begin a batch whose room is taken already."""
        with self._starting:
            self._turn_to(spec.epoch)
            buffer = self._open_buffer(len(spec.rows))
            chunks: list[Future[list[Finished | None]]] = []
            noted: list[list[QuarantineEntry]] = []
            first = 0
            for rows, file_bytes in self._cut(spec.rows):
                noted.append([])
                loaded = self._readers.submit(self._read, next(self._tickets), rows, file_bytes)
                chunks.append(
                    self._makers.submit(self._make, loaded, file_bytes, spec.epoch, first, buffer, noted[-1])
                )
                first += len(rows)
            if self._shared.cached is not None:
                self._unfinished = [one for one in (*self._unfinished, *chunks) if not one.done()]
        return OpenBatch(number, spec, buffer, tuple(chunks), tuple(noted), self._shared.watch, num_bytes)

    def _turn_to(self, epoch: int) -> None:
        """Let an epoch find all that the one before has cached: wait until it is made and written."""
        if self._shared.cached is None:
            return
        if epoch != self._epoch and self._epoch is not None:
            self._shared.watch.wait_for_all(self._unfinished)
            self._shared.cached.cache.publish()
        self._epoch = epoch

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
        read_bytes = 0
        try:
            loaded = self._shared.load(rows)
            read_bytes = sum(len(sample.file.data) for sample in loaded if sample.file is not None)
            activity.hit(sum(sample.kept is not None for sample in loaded))
            return loaded
        finally:
            activity.chunks.change(1)
            clock.enter("room", read_bytes)

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
        noted: list[QuarantineEntry],
    ) -> list[Finished | None]:
        clock = self._shared.activity.clock("make")
        clock.enter("input")
        try:
            samples = loaded.result()
            self._shared.activity.chunks.change(-1)
            clock.enter("draw")
            return self._make_runs(samples, epoch, first, buffer, noted)
        finally:
            self._shared.budget.close_file(file_bytes)
            clock.enter("room")

    def _make_runs(
        self,
        samples: list[Loaded],
        epoch: int,
        first: int,
        buffer: BatchBuffer | DeviceBuffer,
        noted: list[QuarantineEntry],
    ) -> list[Finished | None]:
        clock = self._shared.activity.clock("make")
        if not hasattr(self._own, "assembly"):
            self._own.assembly = Assembly(self._shared, max_samples=self._max_samples)
            self._assemblies.append(self._own.assembly)
        assembly: Assembly = self._own.assembly
        done: list[Finished | None] = []
        for run, num_bytes in assembly.in_runs(samples, epoch, self._most_pixels):
            clock.enter("room")
            with self._shared.budget.pixels(num_bytes, repr(run[0].row["key"])):
                made = assembly.make(run, epoch, noted)
                clock.enter("write")
                for row, sample in enumerate(made, first + len(done)):
                    if sample is not None:
                        buffer.put(row, sample.key, sample.image)
                buffer.settle()
                clock.enter("draw", sum(sample.image.nbytes for sample in made if sample is not None))
                done += [sample and sample.without_pixels() for sample in made]
                del made, sample  # not one picture may outlast its room
        return done


def _device_of(shared: Surroundings) -> str | None:
    """Say on which device of torch batches are put together: a GPU where nothing is left to do on the host."""
    if shared.backend != "dali" or shared.program.plan.device != "gpu":
        return None
    routes = shared.program.routes(augment=shared.view.augment, backend="dali")
    return "cuda:0" if routes.num_lowered == len(routes.routes) else None
