"""The two job contracts, and what finds a job by name.

A job is any class, in this package or yours, whose instances are built from the keys of a job file::

    @dataclass(frozen=True)
    class MeanColour:                       # a batch job
        plan: Plan

        @contextmanager
        def open(self):                     # once per worker: load the model here
            def work(batch):                # once per batch: a list of dicts, one per image
                return [{"key": k, "mean": float(x.float().mean())} for k, x in zip(batch.keys, batch.images)]
            yield work

        def finish(self, records, context): # once, on the merged records: write what people look at
            return {"mean": records["mean"].to_numpy().mean()}

Write ``job: your_package.module:MeanColour`` in the job file and allow the module (``--allow-import your_package``), or list
the class under the entry point ``lightwell.jobs``, which needs no permission.
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
    """Something of each batch, in order, with the books; a context manager, so that threads and DALI leave with it."""

    @property
    def num_batches(self) -> int:
        """Batches of all epochs together, from where it was opened."""
        ...

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far, as dicts."""
        ...

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far, without padding; read = used + replaced."""
        ...

    def position(self) -> dict[str, Any]:
        """Say where the consumer stands, behind the last batch it was given: a small value that JSON holds."""
        ...

    def stats(self) -> FeedStats:
        """Say where the time went so far and what was in flight."""
        ...

    def __iter__(self) -> Iterator[T_co]: ...
    def __enter__(self) -> Stream[T_co]: ...
    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class IncrementalQuarantine(Protocol):
    """A stream that can list what it has found since it was last asked, without listing all that was found before."""

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """List the samples that could not be used, without the first so many that were found, in a stable order."""
        ...


def quarantine_after(stream: Stream[Any], first: int) -> list[Mapping[str, Any]]:
    """List what a stream has found after so many, or all of it where it cannot tell."""
    return stream.quarantine_from(first) if isinstance(stream, IncrementalQuarantine) else stream.quarantine


class Feed(Stream["Batch"], Protocol):
    """An iterator of batches."""

    def __enter__(self) -> Feed: ...


class Engine(Protocol):
    """Turns a plan into a feed. The local engine is the reference for every other."""

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open the batches of a view of a plan; with a position, those that were left there.

        Raises:
            PlanError: the request is wrong, or the position is of another plan or view.
        """
        ...


@dataclass(frozen=True, slots=True)
class BatchRecords:
    """What a batch job made of one batch; its pixels are gone."""

    records: Sequence[Record]
    num_read: int
    """Images of the batch, without padding."""
    num_used: int
    """Of these, those that show what they stand for."""


class JobRun(Stream[BatchRecords], Protocol):
    """A batch job at work on its view."""

    def __enter__(self) -> JobRun: ...


@runtime_checkable
class JobEngine(Protocol):
    """An engine that runs batch jobs where their batches are made, or where their device is."""

    def open_job(self, job: BatchJob, position: Mapping[str, Any] | None = None) -> JobRun:
        """Open a job at its view, from a position on if one is given; raises as ``Engine.feed`` does."""
        ...


class Console(Protocol):
    """Where a job says what it is doing; silent, a terminal or plain lines."""

    def print(self, line: str) -> None:
        """Print one line."""
        ...

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Pass batches on, showing images, rate and time left."""
        ...


@dataclass(frozen=True)
class Context:
    """What a running job may use."""

    engine: Engine
    out: Path
    console: Console
    quarantine: tuple[Mapping[str, Any], ...] = ()
    """Entries of files that could not be used; filled in for ``BatchJob.finish``."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Images read, used, replaced and skipped; filled in for ``BatchJob.finish``."""
    commit_counts: Callable[[], Mapping[str, int]] = dict
    """Writes down which files could not be used and returns the counts so far, of all ranks and of the runs that this one
    goes on with. A training job that goes on calls it before it writes a checkpoint, on every rank."""
    destination: str = ""
    """Where people find what lies below ``out`` when the job is done; the same where it is empty."""
    publish: Callable[[], None] = lambda: None
    """Says that what lies below ``out`` is whole: an engine that keeps results elsewhere copies them there. Called on
    every rank, after a checkpoint and at the end."""


@runtime_checkable
class TrainingJob(Protocol):
    """Learns from a feed."""

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def view(self) -> View:
        """The view of the plan that ``run`` is fed."""
        ...

    def run(self, feed: Feed, context: Context) -> Mapping[str, Any]:
        """Learn; write results below ``context.out``; return the final metrics."""
        ...


@dataclass(frozen=True)
class ResumePoint:
    """What is left of a training job."""

    view: View
    position: Mapping[str, Any] | None = None
    """Where the feed goes on; None for the start of the view."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What ``Context.commit_counts`` returned when the run stood there."""


@runtime_checkable
class Resumable(Protocol):
    """A training job that goes on where an earlier run in the same folder stood."""

    def resume_point(self, out: Path) -> ResumePoint:
        """Say what ``run`` is to be fed, given what an earlier run left in ``out``.

        Raises:
            PlanError: another job has written there.
        """
        ...


@runtime_checkable
class DataParallel(Protocol):
    """A training job whose ``run`` may be one of several ranks, each fed its slice of every batch.

    The ranks have a ``torch.distributed`` process group and the same ``context.out``; only the first writes there.
    """

    def check_ranks(self, num_ranks: int) -> None:
        """Check, before anything starts, that so many ranks can share the batches.

        Raises:
            PlanError: they cannot.
        """
        ...


@runtime_checkable
class BatchJob(Protocol):
    """Turns every batch into records, one per image.

    A job may have a method ``fingerprint() -> str``, which hashes all that decides its records: the plan's own, the view,
    weights, versions of code. By it an interrupted run is gone on with, and the records of one that has ended are taken
    again, so that what only ``finish`` uses, such as a title, is to be left out. Without it every run reads all batches.

    A job may have a method ``plan_warnings() -> Sequence[str]``, which ``lightwell explain`` asks in what its plan does not fit
    its model.
    """

    @property
    def plan(self) -> Plan:
        """The plan that the job reads."""
        ...

    @property
    def view(self) -> View:
        """The view of the plan that is audited."""
        ...

    def open(self) -> AbstractContextManager[Callable[[Batch], Sequence[Record]]]:
        """Enter once per worker; yields the function that is called once per batch."""
        ...

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write what people look at from the merged records; return the findings."""
        ...


@runtime_checkable
class PartWriter(Protocol):
    """A batch job that writes files of its own, a part at a time. What ``work`` returns may then be large."""

    def is_full(self, records: Sequence[Record]) -> bool:
        """Say whether so many records make a part; asked after each batch."""
        ...

    def write_part(self, records: Sequence[Record], part: int, out: Path) -> Sequence[Record]:
        """Write a part's records below ``out``, aside and renamed; equal records give equal files.

        Called before the part is noted as done, so after a crash perhaps once more.

        Args:
            records: what ``work`` has returned for the part's batches.
            part: its number, from 0.
            out: the folder of the results.

        Returns:
            Small records that stand for them and are merged.
        """
        ...


@runtime_checkable
class DeclaresOutputs(Protocol):
    """A job that says which files it writes below ``context.out``, so that no file of somebody else is written over.

    A job that does not is run only where its folder is empty or of an earlier run.
    """

    @property
    def outputs(self) -> Sequence[str]:
        """Names and patterns, such as ``report.html`` or ``shard-*.tar``, relative to ``context.out``.

        What an earlier run of the job has left under them, and the new one has not written, is deleted in the end.
        """
        ...


@runtime_checkable
class DeclaresPartFiles(Protocol):
    """A job that keeps parts and says which files it writes for each, so that damage to them is noticed."""

    def part_files(self, records: Sequence[Record], part: int) -> Sequence[str]:
        """List the files, relative to ``out``, that ``write_part`` will write for these records; asked before ``write_part``.

        Each is among the job's ``outputs``. Their sizes and digests are noted with the part: where a run goes on and
        one of them is damaged, the part is made again.
        """
        ...


def find_job(name: str, *, allow_import: Sequence[str] = (), contract: type[Any] | None = None) -> type[Any]:
    """Find a job class by its entry-point name in ``lightwell.jobs`` or by ``module:Name``.

    Args:
        name: what a job file says.
        allow_import: modules that ``module:Name`` may be imported from, each with its submodules.
        contract: ``TrainingJob`` or ``BatchJob`` where only such a job will do.

    Raises:
        PlanError: no such job, no permission to import it, or it is no job of that kind.
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
    found = import_object(reference, "job")
    kinds = [kind for kind, methods in CONTRACTS.items() if _has_methods(found, methods)]
    wanted = [contract] if contract in CONTRACTS else list(CONTRACTS)
    if not any(kind in kinds for kind in wanted):
        methods = " or ".join(" and ".join(CONTRACTS[kind]) for kind in wanted)
        raise PlanError(
            f"job: expected a class with the methods {methods}, got {quoted(name)}, {_kind_of(found, kinds)}; see "
            "`lightwell.pipeline.jobs.contracts`"
        )
    job: type[Any] = found
    return job


CONTRACTS: Mapping[Any, tuple[str, ...]] = {TrainingJob: ("run",), BatchJob: ("open", "finish")}
"""Methods by which a class is known as one kind of job or the other."""


def _has_methods(found: Any, methods: Sequence[str]) -> bool:
    return isinstance(found, type) and all(callable(getattr(found, method, None)) for method in methods)


def _kind_of(found: Any, kinds: Sequence[Any]) -> str:
    if not isinstance(found, type):
        return f"a {type(found).__name__}"
    if not kinds:
        return "a class without them"
    command = "train" if kinds == [TrainingJob] else "audit"
    return f"which `lightwell {command}` runs"
