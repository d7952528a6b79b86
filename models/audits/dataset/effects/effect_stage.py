"""Stage that measures the effects of the plan on a sample of the images."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from .....pipeline.batch.annotations import AnnotationKinds
from .....pipeline.compiler.program import Program
from .....pipeline.jobs.fingerprint import fingerprint_of
from .....pipeline.jobs.stages import Images, Inputs, Process, Source
from .....pipeline.rng import derive_seed, numpy_generator
from ..records import PLAN_EFFECTS, RECORDS
from .view_meter import EFFECT_SCHEMA, EVALUATION, NUM_VIEWS, ViewMeter

if TYPE_CHECKING:
    from .....pipeline.load.samples import ImageSample
    from .....pipeline.plan.plan import Plan
    from ..job import DatasetAudit

EFFECTS_VERSION = 1
"""To be increased when a measure gives other values than before."""
MAX_IMAGES = 2048
"""Images that are measured, as the costs grow with their number."""


@dataclass(frozen=True)
class EffectStage:
    """Effects of the plan's training and evaluation views on images."""

    audit: DatasetAudit

    name = PLAN_EFFECTS
    needs = (RECORDS,)
    schema = EFFECT_SCHEMA

    def fingerprint(self) -> str:
        """Hash plan, split, sample and version."""
        plan = self.audit.plan.fingerprint()
        return fingerprint_of([EFFECTS_VERSION, plan, self.audit.split, MAX_IMAGES, NUM_VIEWS])

    def source(self, inputs: Inputs) -> Source:
        """Return a sample of the readable images at their full size."""
        records = inputs[RECORDS]
        readable = records.filter(pc.is_null(records["problem"]))["key"].to_pylist()
        keys = sampled_keys(readable, self.audit.plan.seed)
        return Images(self.audit.plan, self.audit.split, keys=keys)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that measures the views of images; it may be called by several threads."""
        program = Program.compile(measured_plan(self.audit.plan))
        num_views = NUM_VIEWS if self.audit.plan.augment else 1  # without random steps all views are equal
        kinds = AnnotationKinds.of(self.audit.plan.load_index())
        local = threading.local()

        def meters() -> tuple[tuple[ViewMeter, range], ...]:
            if not hasattr(local, "meters"):
                local.meters = (
                    (ViewMeter(program, kinds, augment=True), range(num_views)),
                    (ViewMeter(program, kinds, augment=False), range(EVALUATION, 0)),
                )
            found: tuple[tuple[ViewMeter, range], ...] = local.meters
            return found

        def process(samples: Iterable[ImageSample]) -> pa.RecordBatch:
            rows = [
                meter.measure(sample, view)
                for sample in samples
                for meter, views in meters()
                for view in views
            ]
            return pa.RecordBatch.from_pylist(rows, schema=EFFECT_SCHEMA)

        yield process


def has_steps(plan: Plan) -> bool:
    """Return whether a plan has transforms."""
    return bool(plan.preprocess or plan.augment or plan.evaluate)


def effect_stages(audit: DatasetAudit) -> tuple[EffectStage, ...]:
    """Return the stage of the plan's effects; none for a plan without transforms."""
    return (EffectStage(audit),) if has_steps(audit.plan) else ()


def measured_plan(plan: Plan) -> Plan:
    """Return a plan with the transforms of another, at its full size, without its cache."""
    return plan.model_copy(update={"cache": None, "progressive_size": None, "device": "cpu"})


def sampled_keys(keys: Sequence[str], seed: int, most: int = MAX_IMAGES) -> tuple[str, ...]:
    """Return at most so many of the keys, in their order."""
    if len(keys) <= most:
        return tuple(keys)
    generator = numpy_generator(derive_seed("inspect", seed, 0, "plan effects"))
    rows = sorted(generator.choice(len(keys), most, replace=False).tolist())
    return tuple(keys[row] for row in rows)
