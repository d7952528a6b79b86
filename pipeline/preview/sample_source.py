"""Makes single samples as a feed does, with a record of the steps that were applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..batch.annotations import AnnotationKinds
from ..compiler.program import Program
from ..compiler.routing import Backend
from ..executor.apply import no_output_slot
from ..executor.cached import CacheReader
from ..executor.sample_worker import Sample, SampleWorker, WorkerContext
from ..index.index import Index
from ..load.loader import SampleLoader
from ..memory.budget import BudgetSplit, MemoryBudget
from ..monitor.quarantine import QuarantineEntry
from ..monitor.step_timer import FeedMonitor
from ..monitor.watchdog import Watchdog
from ..plan.view import View
from ..transform.params import Trace
from .steps import NORMALIZE, StepShown, steps_shown

CACHE_BYTES = 1 << 20
"""For pictures on their way into a cache, which nobody reads."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no picture."""

    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A finished sample. Its pixels last until the next is made."""

    finished: Sample
    steps: tuple[StepShown, ...]


class SampleSource:
    """One view of a plan, sample by sample; leave it with ``close``. One thread at a time.

    Args:
        program: the compiled plan.
        view: which policy, and whether it augments.
        index: of the samples.
        rows: that the view reads, from which bad ones are replaced where the plan says so.
        backend: what works on pixels.
    """

    def __init__(
        self, program: Program, view: View, index: Index, rows: np.ndarray, *, backend: Backend
    ) -> None:
        watch = Watchdog(program.plan.errors.max_seconds_per_file)
        kinds = AnnotationKinds.of(index)
        self._trace = Trace()
        self._loader = SampleLoader(index, program.plan.errors, watch)
        self._statuses = index.table["status"]
        compose = program.compose(augment=view.augment, boxes=kinds.boxes, keypoints=kinds.num_keypoints > 0)
        self._transforms: Sequence[Any] = compose.transforms
        self._normalizes = program.normalization is not None
        shared = WorkerContext(
            program,
            view,
            self._loader,
            rows,
            FeedMonitor(),
            MemoryBudget(BudgetSplit(rows=1, files=1, pixels=1)),
            watch,
            kinds,
            backend=backend,
            cached=CacheReader.open(program, index, CACHE_BYTES),
            trace=self._trace,
        )
        self._cached = shared.cached
        self._worker = SampleWorker(shared, max_samples=1)

    def make(self, row: int, epoch: int) -> Made | Failed:
        """Make the sample of a row of the index as it is in an epoch."""
        status = self._statuses[row].as_py()
        if status != "ok":
            return Failed("index", status or "no status")
        (loaded,) = self._loader.load(np.array([row]))
        noted: list[QuarantineEntry] = []
        (finished,) = self._worker.process([loaded], epoch, [no_output_slot], noted)
        if finished is None:
            return Failed(noted[-1].step, noted[-1].reason)
        steps = steps_shown(self._transforms, self._trace.done)
        if self._normalizes:
            steps = (*steps, NORMALIZE)
        return Made(finished, steps)

    def close(self) -> None:
        """Close the executor and its files."""
        self._worker.close()
        self._loader.close()
        if self._cached is not None:
            self._cached.cache.close()
