"""Protocols of jobs, engines and feeds, and lookup of jobs by name.

A job is any class, in this package or yours, whose instances are built from the keys of a job file::

    @dataclass(frozen=True)
    class MeanColour:                       # a batch job
        plan: Plan

        @contextmanager
        def open(self):                     # once per worker: load the model here
            def work(batch):                # once per batch: a list of dicts, one per image
                return [{"key": k, "mean": float(x.float().mean())} for k, x in zip(batch.keys, batch.images)]
            yield work

        def finish(self, records, context): # once, on the merged records: write the results
            return {"mean": records["mean"].to_numpy().mean()}

Write ``job: your_package.module:MeanColour`` in the job file and allow the module (``--allow-import your_package``), or
register the class under the entry point ``lightwell.jobs``, which needs no permission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from ..config.imports import JOBS, AllowedModules, entry_point_targets, import_object
from ..errors import PlanError, did_you_mean
from ..text import quoted

if TYPE_CHECKING:
    import pyarrow as pa

    from ..batch.batch import Batch
    from ..monitor.stats import FeedStats
    from ..plan.plan import Plan
    from ..plan.view import View

Record = Mapping[str, Any]


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """Ordered stream of one item per batch, with position, counts and quarantine; a context manager that frees threads."""

    @property
    def num_batches(self) -> int:
        """Batches of all epochs together, from where the stream was opened."""
        ...

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples so far that could not be used, as dicts."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far, without padding; read = used + replaced."""
        ...

    def position(self) -> dict[str, Any]:
        """Return the consumer's position, after the last batch it received, as a small JSON value."""
        ...

    def stats(self) -> FeedStats:
        """Return time per step, throughput and memory use so far."""
        ...

    def __iter__(self) -> Iterator[T_co]: ...
    def __enter__(self) -> Stream[T_co]: ...
    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class IncrementalQuarantine(Protocol):
    """A stream that can return new quarantine entries without repeating the earlier ones."""

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """Return the entries of ``quarantine`` from an index on, in a stable order."""
        ...


def quarantine_after(stream: Stream[Any], first: int) -> list[Mapping[str, Any]]:
    """Return a stream's quarantine entries from an index on, or all of them if it is not incremental."""
    return stream.quarantine_from(first) if isinstance(stream, IncrementalQuarantine) else stream.quarantine


class Feed(Stream["Batch"], Protocol):
    """Stream of batches."""

    def __enter__(self) -> Feed: ...


class Engine(Protocol):
    """Opens feeds of plans. The local engine is the reference for all others."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: plan or view is invalid, or the position belongs to another plan or view.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchRecords:
    """Records of a batch job for one batch, without its pixels."""

    records: Sequence[Record]
    num_read: int
    """Images of the batch, without padding."""
    num_used: int
    """Of these, those that were not replaced by another image."""


class JobRun(Stream[BatchRecords], Protocol):
    """Stream of a running batch job."""

    def __enter__(self) -> JobRun: ...


@runtime_checkable
class JobEngine(Protocol):
    """An engine that runs batch jobs in its workers, beside the batches or on their device."""

    def open_job(self, job: BatchJob, position: Mapping[str, Any] | None = None) -> JobRun:
        """Open a run of a job over its view, from a position on if one is given; raises as ``Engine.feed`` does."""
        ...


class Console(Protocol):
    """Progress output: a terminal, plain lines or none."""

    def print(self, line: str) -> None:
        """Print one line."""
        ...

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Yield the batches and show images, rate and remaining time."""
        ...


@dataclass(frozen=True)
class Context:
    """Services and results available to a running job."""

    engine: Engine
    out: Path
    console: Console
    quarantine: tuple[Mapping[str, Any], ...] = ()
    """Entries of files that could not be used; set for ``BatchJob.finish``."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Images read, used, replaced and skipped; set for ``BatchJob.finish``."""
    commit_counts: Callable[[], Mapping[str, int]] = dict
    """Writes the quarantine list and returns the counts so far, over all ranks and including resumed runs. A resumable
    training job calls it on every rank before it writes a checkpoint."""
    destination: str = ""
    """Final location of the results, for display; empty if it is ``out``."""
    publish: Callable[[], None] = lambda: None
    """Uploads the files below ``out`` if the results are stored elsewhere; they have to be complete. Called on every
    rank, after a checkpoint and at the end."""


@runtime_checkable
class TrainingJob(Protocol):
    """Job that trains on a feed."""

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def view(self) -> View:
        """The view of the plan that ``run`` trains on."""
        ...

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:
        """Train, write results below ``context.out`` and return the final metrics."""
        ...


@dataclass(frozen=True)
class ResumePoint:
    """Where a training job continues."""

    view: View
    position: Mapping[str, Any] | None = None
    """Position of the feed; None for the start of the view."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The result of ``Context.commit_counts`` at that position."""


@runtime_checkable
class Resumable(Protocol):
    """A training job that can continue an earlier run in the same folder."""

    def resume_point(self, out: Path) -> ResumePoint:
        """Return view and position for ``run``, given the files of an earlier run in ``out``.

        Raises:
            PlanError: ``out`` belongs to another job.
        """
        ...


@runtime_checkable
class DataParallel(Protocol):
    """A training job that supports data parallelism: ``run`` is one of several ranks, each with its slice of every batch.

    The ranks share a ``torch.distributed`` process group and ``context.out``, where only the first one writes.
    """

    def check_ranks(self, num_ranks: int) -> None:
        """Check, before the start, that a number of ranks can share the batches.

        Raises:
            PlanError: they cannot.
        """
        ...


@runtime_checkable
class BatchJob(Protocol):
    """Job that turns every batch into records, one per image.

    An optional method ``fingerprint() -> str`` hashes everything that determines the records: the plan's fingerprint, the
    view, weights, code versions. With it an interrupted run is resumed and the records of a finished one are reused, so
    leave out what only ``finish`` uses, such as a title. Without it every run reads all batches.

    An optional method ``plan_warnings() -> Sequence[str]`` returns mismatches between plan and model, which ``lightwell
    explain`` prints.
    """

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def view(self) -> View:
        """The view of the plan that is processed."""
        ...

    def open(self) -> AbstractContextManager[Callable[[Batch], Sequence[Record]]]:
        """Open the job, once per worker; yields the function that is called once per batch."""
        ...

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write the results from the merged records; return the findings."""
        ...


@runtime_checkable
class PartWriter(Protocol):
    """A batch job that writes its own files, part by part; the records of a batch may then be large."""

    def is_full(self, records: Sequence[Record]) -> bool:
        """Return whether the records make a full part; called after each batch."""
        ...

    def write_part(self, records: Sequence[Record], part: int, out: Path) -> Sequence[Record]:
        """Write a part's records below ``out``, atomically; equal records must give equal files.

        Called before the part is recorded as done, so possibly again after a crash.

        Args:
            records: the records of the part's batches.
            part: number of the part, from 0.
            out: folder of the results.

        Returns:
            Small records to store and merge in their place.
        """
        ...


@runtime_checkable
class DeclaresOutputs(Protocol):
    """A job that declares its output files below ``context.out``, so that no other file is overwritten.

    A job that does not runs only in an empty folder or in one of an earlier run.
    """

    @property
    def outputs(self) -> Sequence[str]:
        """Names and patterns, such as ``report.html`` or ``shard-*.tar``, relative to ``context.out``.

        Matching files of an earlier run that the new one has not written are deleted at the end.
        """
        ...


@runtime_checkable
class DeclaresPartFiles(Protocol):
    """A ``PartWriter`` that declares the files of each part, so that damage to them is detected."""

    def part_files(self, records: Sequence[Record], part: int) -> Sequence[str]:
        """Return the files, relative to ``out``, that ``write_part`` will write for these records; called before it.

        Each has to match the job's ``outputs``. Sizes and digests are stored with the part: if one of the files is
        damaged when a run is resumed, the part is made again.
        """
        ...


def find_job(name: str, *, allow_import: Sequence[str] = (), contract: type[Any] | None = None) -> type[Any]:
    """Return a job class by its entry-point name in ``lightwell.jobs`` or by ``module:Name``.

    Args:
        name: name of the job, as in a job file.
        allow_import: modules that ``module:Name`` may be imported from, each with its submodules.
        contract: required kind of job, ``TrainingJob`` or ``BatchJob``; None allows both.

    Raises:
        PlanError: no such job, no permission to import it, or it is another kind of job.
    """
    if ":" in name:
        AllowedModules.from_names(allow_import).check(name, "job", group=JOBS)
        reference = name
    else:
        entries = entry_point_targets(JOBS)
        if name not in entries:
            raise PlanError(
                f"job: expected one of {sorted(entries)} or 'module:Name', got {quoted(name)}; {did_you_mean(name, entries)}"
            )
        reference = entries[name]
    cls = import_object(reference, "job")
    kinds = [kind for kind, methods in CONTRACTS.items() if _has_methods(cls, methods)]
    allowed = [contract] if contract in CONTRACTS else list(CONTRACTS)
    if not any(kind in kinds for kind in allowed):
        methods = " or ".join(" and ".join(CONTRACTS[kind]) for kind in allowed)
        raise PlanError(
            f"job: expected a class with the methods {methods}, got {quoted(name)}, {_kind_of(cls, kinds)}; see "
            "`lightwell.pipeline.jobs.contracts`"
        )
    job: type[Any] = cls
    return job


CONTRACTS: Mapping[Any, tuple[str, ...]] = {TrainingJob: ("run",), BatchJob: ("open", "finish")}
"""Methods that identify each kind of job."""


def _has_methods(found: Any, methods: Sequence[str]) -> bool:
    return isinstance(found, type) and all(callable(getattr(found, method, None)) for method in methods)


def _kind_of(found: Any, kinds: Sequence[Any]) -> str:
    if not isinstance(found, type):
        return f"a {type(found).__name__}"
    if not kinds:
        return "a class without them"
    command = "train" if kinds == [TrainingJob] else "audit"
    return f"which `lightwell {command}` runs"
