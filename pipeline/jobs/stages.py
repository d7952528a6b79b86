"""Batch jobs: one or more stages, each of which maps the items of a source to Arrow records, and an end that writes results.

Most jobs need one stage over the batches of a view::

    @dataclass(frozen=True)
    class MeanColour:                       # a SingleStageJob
        plan: Plan
        view: ClassVar = View()
        schema: ClassVar = pa.schema({"key": pa.string(), "mean": pa.float64()})

        def fingerprint(self):              # of everything that determines the records
            return self.plan.fingerprint()

        @contextmanager
        def open(self):                     # once per worker: load the model here
            def process(batch):             # once per batch
                means = [float(image.float().mean()) for image in batch.images]
                return pa.record_batch({"key": batch.keys, "mean": means}, schema=self.schema)
            yield process

        def finish(self, records, context): # once, on the records of all batches: write the results
            return {"mean": records["mean"].to_numpy().mean()}

A ``BatchJob`` has several stages. A stage reads one of

========== ================================================== ===============================================
source     an item                                            the function is called
========== ================================================== ===============================================
`Batches`  a `Batch` of a view, transformed by the plan       in one thread of each worker
`Files`    an iterable of `FileSample`, the bytes as stored   in several threads at once
`Images`   an iterable of `ImageSample`, decoded at full size in several threads at once
`Rows`     a `pyarrow.Table`: rows of an earlier stage        in one thread of each worker
========== ================================================== ===============================================

The records of a finished stage are kept under its fingerprint, ``OUT/stages/NAME-FINGERPRINT/``, and are not made again. So
another title of a report, which no fingerprint includes, takes seconds.

``lightwell new job NAME`` writes a job to start from; ``lightwell.testing`` has the checks that a job should pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..errors import PlanError
from ..text import quoted
from .fingerprint import fingerprint_of

if TYPE_CHECKING:
    import pyarrow as pa

    from ..batch.batch import Batch
    from ..plan.plan import Plan
    from ..plan.view import View
    from .contracts import Context

STAGE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
SINGLE_STAGE = "records"
"""Name of the stage of a `SingleStageJob`."""

Inputs = Mapping[str, "pa.Table"]
"""Records of the stages that a stage needs, by name."""
Process = Callable[[Any], "pa.RecordBatch"]
"""Maps an item to its records."""


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of a view of a plan."""

    plan: Plan
    view: View


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an index as they are stored; those that cannot be read are left out and quarantined."""

    plan: Plan
    """Its index is read, under its ``errors``; transforms do not matter."""
    split: str | None = None
    """None reads all."""
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Images:
    """The images of an index, decoded at full size; those that cannot be used are left out and quarantined."""

    plan: Plan
    """Its index is read, under its ``errors``; transforms do not matter."""
    split: str | None = None
    """None reads all."""
    batch_size: int = 16
    keys: tuple[str, ...] | None = None
    """Of these images only, in this order."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The records of an earlier stage."""

    stage: str
    """Name of the stage, one of ``needs``."""
    batch_size: int | None = None
    """Rows per item; None hands over the whole table once."""


Source = Batches | Files | Images | Rows


class Stage(Protocol):
    """One map from the items of a source to records. Sent to workers, so it must be picklable."""

    @property
    def name(self) -> str:
        """Lower-case letters, digits and underscores; unique in the job."""
        ...

    @property
    def needs(self) -> Sequence[str]:
        """Names of the earlier stages whose records it reads."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Schema of the records."""
        ...

    def fingerprint(self) -> str:
        """Hash everything that determines the records, besides those of ``needs``: plan, view, weights, code version."""
        ...

    def source(self, inputs: Inputs) -> Source:
        """Return the source of the items; called once, after the stages that it needs."""
        ...

    def open(self, inputs: Inputs) -> AbstractContextManager[Process]:
        """Open the stage, once per worker; yields the function that is called for each item."""
        ...


@runtime_checkable
class BatchJob(Protocol):
    """Job of one or more stages."""

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def stages(self) -> Sequence[Stage]:
        """The stages, in the order in which they run."""
        ...

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write the results from the records of all stages, by name; return the findings.

        ``lightwell report`` calls it again for a finished run, possibly where plan, images and model are not available.
        """
        ...


@runtime_checkable
class SingleStageJob(Protocol):
    """Job of one stage, named ``records``, over the batches of a view. Its records are also kept as ``records.parquet``."""

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def view(self) -> View:
        """The view of the plan that is processed."""
        ...

    @property
    def schema(self) -> pa.Schema:
        """Schema of the records."""
        ...

    def fingerprint(self) -> str:
        """Hash everything that determines the records; leave out what only ``finish`` uses, such as a title."""
        ...

    def open(self) -> AbstractContextManager[Callable[[Batch], pa.RecordBatch]]:
        """Open the job, once per worker; yields the function that is called once per batch."""
        ...

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write the results from all records; return the findings."""
        ...


AnyBatchJob = BatchJob | SingleStageJob


@runtime_checkable
class PartWriter(Protocol):
    """A stage that writes its own files, part by part; the records of a batch may then be large."""

    def is_full(self, records: pa.Table) -> bool:
        """Return whether the records make a full part; called after each batch."""
        ...

    def part_files(self, records: pa.Table, part: int) -> Sequence[str]:
        """Return the files, relative to ``out``, that ``write_part`` will write for these records; called before it.

        Each has to match the job's ``outputs``. Sizes and digests are stored with the part: if one of the files is
        damaged when a run is resumed, the part is made again.
        """
        ...

    def write_part(self, records: pa.Table, part: int, out: Path) -> pa.Table:
        """Write a part's records below ``out``, atomically; equal records must give equal files.

        Called before the part is recorded as done, so possibly again after a crash.

        Args:
            records: the records of the part's batches, as the stage's function returned them.
            part: number of the part, from 0.
            out: folder of the results.

        Returns:
            Small records to store in their place, of the stage's ``schema``.
        """
        ...

    @property
    def part_schema(self) -> pa.Schema:
        """Schema of the records that the stage's function returns."""
        ...


@runtime_checkable
class WarnsAboutPlan(Protocol):
    """A job that compares its plan with its model."""

    def plan_warnings(self) -> Sequence[str]:
        """Return mismatches between plan and model, which ``lightwell explain`` prints."""
        ...


@dataclass(frozen=True)
class BatchStage:
    """The stage of a `SingleStageJob`."""

    job: SingleStageJob

    @property
    def name(self) -> str:
        """Name of the stage."""
        return SINGLE_STAGE

    @property
    def needs(self) -> tuple[str, ...]:
        """No other stages."""
        return ()

    @property
    def schema(self) -> pa.Schema:
        """Schema of the records."""
        return self.job.schema

    def fingerprint(self) -> str:
        """Return the job's fingerprint."""
        return self.job.fingerprint()

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the batches of the job's view."""
        return Batches(self.job.plan, self.job.view)

    def open(self, inputs: Inputs) -> AbstractContextManager[Process]:  # noqa: ARG002
        """Open the job."""
        return self.job.open()


def stages_of(job: AnyBatchJob) -> tuple[Stage, ...]:
    """Return the stages of a job, after a check of their names.

    Raises:
        PlanError: the job lacks a member of its contract, or a stage is named wrongly or needs one that is not before it.
    """
    if not isinstance(job, BatchJob):
        missing = [
            name
            for name in ("plan", "view", "schema", "fingerprint", "open", "finish")
            if not hasattr(job, name)
        ]
        if missing:
            raise PlanError(
                f"{type(job).__name__}: expected a batch job with plan, view, schema, fingerprint, open and finish, got one "
                f"without {' and '.join(missing)}; see `lightwell.pipeline.jobs.stages`"
            )
        return (BatchStage(job),)
    known: list[str] = []
    for stage in job.stages:
        where = f"{type(job).__name__}: stages"
        if not STAGE_NAME.fullmatch(stage.name) or stage.name in known:
            raise PlanError(
                f"{where}: expected different names of lower-case letters, digits and '_', got {quoted(stage.name)}; rename it"
            )
        later = [name for name in stage.needs if name not in known]
        if later:
            raise PlanError(
                f"{where}: expected {stage.name} to need stages before it ({', '.join(known) or 'there are none'}), got "
                f"{quoted(later[0])}; reorder the stages, or correct the name"
            )
        known.append(stage.name)
    if not known:
        raise PlanError(f"{type(job).__name__}: stages: expected at least one, got none; add a stage")
    return tuple(job.stages)


def finish_job(job: AnyBatchJob, records: Inputs, context: Context) -> Mapping[str, Any]:
    """Call a job's ``finish`` with the records of its stages; returns the findings."""
    if isinstance(job, BatchJob):
        return job.finish(records, context)
    context.export_records(SINGLE_STAGE, f"{SINGLE_STAGE}.parquet")
    return job.finish(records[SINGLE_STAGE], context)


def stage_keys(stages: Sequence[Stage]) -> dict[str, str]:
    """Hash each stage with those that it needs; returns ``NAME-FINGERPRINT`` by name."""
    keys: dict[str, str] = {}
    for stage in stages:
        facts = [stage.fingerprint(), stage.schema.to_string(), [keys[name] for name in stage.needs]]
        keys[stage.name] = f"{stage.name}-{fingerprint_of(facts)}"
    return keys


def conform_records(stage: Stage, records: Any) -> pa.RecordBatch:
    """Return records in the schema of their stage, cast where no value changes.

    Raises:
        PlanError: they are not Arrow records, or have other columns or types.
    """
    import pyarrow as pa

    schema = stage.part_schema if isinstance(stage, PartWriter) else stage.schema
    if isinstance(records, pa.RecordBatch):
        if records.schema.equals(schema):
            return records
        try:
            if records.schema.names == schema.names:
                return records.cast(schema)
        except (pa.ArrowException, NotImplementedError):
            pass  # the types are named below
        got = f"one of {_columns(records.schema)}"
    else:
        got = f"a {type(records).__name__}"
    raise PlanError(
        f"stage {stage.name}: expected a pyarrow.RecordBatch of {_columns(schema)}, got {got}; return "
        "pa.record_batch(columns, schema=schema)"
    )


def _columns(schema: pa.Schema) -> str:
    return "(" + ", ".join(f"{field.name}: {field.type}" for field in schema) + ")"
