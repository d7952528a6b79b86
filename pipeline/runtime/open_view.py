"""Opened view of a plan: compiled program, rows and schedule, without reading images. Every engine starts from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow.compute as pc

from ..batch.annotations import AnnotationKinds, check_mix
from ..compiler.program import Program
from ..index.index import Index
from ..index.key_rows import rows_of
from ..memory.estimates import OutputSize, SampleSizes, estimate_output_size
from ..plan.plan import Plan
from ..plan.view import View
from ..sampler.schedule import Schedule


@dataclass(frozen=True)
class OpenView:
    """Program, rows, schedule and estimated sizes of a view. Thread-safe."""

    view: View
    program: Program
    index: Index
    rows: np.ndarray
    """int64 rows of the index that the view reads."""
    schedule: Schedule

    @classmethod
    def of(cls, plan: Plan, view: View, index: Index | None = None) -> Self:
        """Compile the plan and compute the view's schedule; reads the index if it is not given.

        Raises:
            PlanError: plan or view is invalid.
            SourceError: the index cannot be used or has no such split.
        """
        program = Program.compile(plan)
        index = plan.load_index() if index is None else index
        if view.augment and plan.mix is not None:
            check_mix(plan.mix, AnnotationKinds.of(index))
        rows = _usable_rows(plan, view, index) if view.keys is None else rows_of(index, view.keys)
        return cls(view, program, index, rows, Schedule.of(plan, view, index, rows))

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.program.plan

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the plan with the content of its index."""
        return self.plan.fingerprint(self.index)

    @cached_property
    def annotation_kinds(self) -> AnnotationKinds:
        """Kinds of annotations in the index."""
        return AnnotationKinds.of(self.index)

    @cached_property
    def sample_sizes(self) -> SampleSizes:
        """Sizes of the samples, from the index."""
        return SampleSizes.of(self.index)

    @cached_property
    def output_size(self) -> OutputSize:
        """Sizes of output images, estimated from sampled parameters of a few."""
        return estimate_output_size(self.program, self.view, self.index, self.rows)

    @cached_property
    def largest_batch_bytes(self) -> int:
        """Upper bound of a batch's size, from the largest images of the view."""
        return self.output_size.bytes(self.sample_sizes.largest(self.rows, self.plan.batch.size))


def _usable_rows(plan: Plan, view: View, index: Index) -> np.ndarray:
    """Return the rows of a view; none if no image of the index is usable and the plan skips those.

    Such a view has no batches, and its quarantine lists the images with the reasons.

    Raises:
        SourceError: no row matches.
    """
    if (
        plan.errors.on_error == "skip"
        and len(index)
        and not pc.any(pc.equal(index.table["status"], "ok")).as_py()
    ):
        return np.empty(0, np.int64)
    return index.rows(view.split)
