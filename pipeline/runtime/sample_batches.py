"""Reads the files of a view's batches, and decodes them at full size, for stages over files and images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from ..errors import LightwellError, PlanError, SampleError
from ..load.decode.decoder import EncodedImage, decode_single
from ..load.decode.fallback import FallbackLog
from ..load.decode.plan import DecodePlan, full_region
from ..load.loader import EncodedSample, SampleLoader
from ..load.samples import FileSample, ImageSample
from ..memory.budget import BudgetSplit, MemoryBudget
from ..monitor.quarantine import QuarantineEntry
from ..monitor.step_timer import FeedMonitor
from ..monitor.watchdog import Watchdog
from ..plan.plan import BatchOptions, Plan
from ..plan.view import View
from ..sampler.schedule import BatchSpec
from ..uris import public_uri
from .batch_builder import BatchResult
from .open_view import OpenView

R = TypeVar("R")
S = TypeVar("S", FileSample, ImageSample)
SampleKind = Literal["files", "images"]
COPIES = 2
"""Copies of an image's pixels that may exist at once: as decoded, and as the function transforms it."""


def open_samples(
    plan: Plan, split: str | None, batch_size: int, keys: tuple[str, ...] | None = None
) -> OpenView:
    """Open the samples of an index in order, without the plan's transforms; raises as ``OpenView.of`` does."""
    bare = Plan(index=plan.index, batch=BatchOptions(size=batch_size), errors=plan.errors)
    return OpenView.of(bare, View(split=split, keys=keys))


class SampleBatches:
    """Hands the samples of numbered batches to a function, one by one. Thread-safe; end it with ``close``.

    Args:
        opened: the samples, from ``open_samples``.
        kind: what a sample is: a file's bytes or its pixels.
        memory_bytes: limit of the files and pixels in flight; a larger image is decoded while no other is.
        monitor: records time per step.
    """

    def __init__(
        self,
        opened: OpenView,
        kind: SampleKind,
        *,
        memory_bytes: int,
        monitor: FeedMonitor | None = None,
    ) -> None:
        self.monitor = monitor or FeedMonitor()
        self.budget = MemoryBudget(
            BudgetSplit(rows=1, files=max(1, memory_bytes // 4), pixels=max(1, 3 * memory_bytes // 4))
        )
        self.watchdog = Watchdog(opened.plan.errors.max_seconds_per_file)
        self.raises = opened.plan.errors.on_error == "raise"
        self._opened = opened
        self.kind = kind
        self.loader = SampleLoader(opened.index, opened.plan.errors, self.watchdog)
        self.fallbacks = FallbackLog()
        self._spec_cache: Mapping[int, BatchSpec] = {}

    def process(self, number: int, function: Callable[[Iterator[Any]], R]) -> tuple[BatchResult, R | None]:
        """Call a function with the samples of a batch; returns counts, quarantine entries and what it returned.

        Args:
            number: of the batch.
            function: given an iterator of `FileSample` or `ImageSample`, to be read to its end. Samples that cannot be used
                are left out.
        """
        spec = self._spec(number)
        timer = self.monitor.timer("stage")
        reader = _Reader(self, spec)
        try:
            timer.enter("compute")
            value = function(iter(reader))
            if not reader.finished:
                raise PlanError(
                    f"stage: expected its function to read every {self.kind[:-1]} of a batch, got one that stopped early; "
                    "iterate to the end"
                )
        except LightwellError as error:
            return BatchResult(number, None, entries=tuple(reader.failures), error=error), None
        finally:
            timer.enter("output")
        made, used = len(spec.rows), reader.num_read
        failures = tuple(reader.failures)
        counts = BatchResult(number, None, made, made - used, used, used, made - used, entries=failures)
        return counts, value if used else None

    def close(self) -> None:
        """Close files and connections."""
        self.budget.close()
        self.loader.close()

    def _spec(self, number: int) -> BatchSpec:
        """Return a batch's spec; the next ones are computed with it and cached."""
        specs = self._spec_cache
        if number not in specs:
            self._spec_cache = specs = self._opened.schedule.batches_from(number)
        return specs[number]


class _Reader:
    """Iterates over the samples of one batch, once."""

    def __init__(self, batches: SampleBatches, spec: BatchSpec) -> None:
        self._batches = batches
        self._spec = spec
        self._timer = batches.monitor.timer("stage")
        self.failures: list[QuarantineEntry] = []
        self.num_read = 0
        self.finished = False

    def __iter__(self) -> Iterator[FileSample | ImageSample]:
        budget = self._batches.budget
        for row in self._spec.rows:
            self._timer.enter("load")
            (sample,) = self._batches.loader.load(np.array([row]))
            num_bytes = 0 if sample.file is None else len(sample.file.data)
            self._timer.enter("compute", num_bytes)
            if sample.file is None:
                self._fail(sample, sample.step, sample.reason)
                continue
            budget.add_file(num_bytes)
            try:
                if self._batches.kind == "files":
                    yield self._count(FileSample(sample.row["key"], sample.file.data, sample.row))
                else:
                    yield from self._decode(sample, sample.file)
            finally:
                budget.release_file(num_bytes)
        self.finished = True

    def _decode(self, sample: EncodedSample, file: EncodedImage) -> Iterator[ImageSample]:
        """Yield the decoded image, whose pixels are reserved in the budget until the next one is asked for."""
        batches, timer = self._batches, self._timer
        height, width = file.size
        timer.enter("output")
        with batches.budget.pixels(COPIES * 3 * height * width, repr(file.key)):
            timer.enter("decode")
            started = time.perf_counter()
            with batches.watchdog.track("decode", file.key):
                decoded = decode_single(file, DecodePlan("full", full_region(file.size), ()))
            slow = batches.watchdog.timeout_reason(time.perf_counter() - started)
            timer.enter("compute", 0 if decoded.image is None else decoded.image.nbytes)
            if slow:
                self._fail(sample, "time", f"decoding {slow}", decoded.decoders)
            elif decoded.image is None:
                self._fail(sample, "decode", decoded.reason, decoded.decoders)
            else:
                if decoded.reason:
                    batches.fallbacks.log(file.key, decoded.reason, decoded.decoders[-1])
                yield self._count(ImageSample(file.key, decoded.image, sample.row, sample.mask))

    def _count(self, sample: S) -> S:
        self.num_read += 1
        return sample

    def _fail(self, sample: EncodedSample, step: str, reason: str, decoders: Sequence[str] = ()) -> None:
        row = sample.row
        uri, tried = public_uri(row["uri"]), ", ".join(decoders)
        self.failures.append(QuarantineEntry(row["key"], uri, step, reason, tried, None, self._spec.epoch))
        if self._batches.raises:
            raise SampleError(str(row["key"]), step, reason)
