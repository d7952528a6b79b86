"""Protocols of training jobs, engines and feeds, and the context of a running job.

A training job is any class, in this package or yours, whose instances are built from the keys of a job file and that has a
method ``run``. Batch jobs are in ``stages``. Write ``job: your_package.module:Name`` in the job file and allow the module
(``--allow-import your_package``), or register the class under the entry point ``lightwell.jobs``, which needs no permission.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from ..batch.batch import Batch  # noqa: F401 - named in a string
    from ..monitor.stats import FeedStats
    from ..plan.plan import Plan
    from ..plan.view import View

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
    """Entries of files that could not be used, in any stage; set for ``BatchJob.finish``."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Images read, used, replaced and skipped by the first stage; set for ``BatchJob.finish``."""
    commit_counts: Callable[[], Mapping[str, int]] = dict
    """Writes the quarantine list and returns the counts so far, over all ranks and including resumed runs. A resumable
    training job calls it on every rank before it writes a checkpoint."""
    shared: Path | None = None
    """Folder common to several runs, for results that all of them need; None without one."""
    destination: str = ""
    """Final location of the results, for display; empty if it is ``out``."""
    publish: Callable[[], None] = lambda: None
    """Uploads the files below ``out`` if the results are stored elsewhere; they have to be complete. Called on every
    rank, after a checkpoint and at the end."""
    export_records: Callable[[str, str], None] = lambda stage, name: None  # noqa: ARG005
    """Puts the records of a stage into ``out`` under a file name ``NAME.parquet``, one of the job's ``outputs``; set for
    ``BatchJob.finish``."""


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
class Repeatable(TrainingJob, Protocol):
    """A training job that knows which of its keys determine its result; a sweep distinguishes its trials by them."""

    def result_config(self) -> Mapping[str, Any]:
        """Return these keys and their values as JSON values."""
        ...


@runtime_checkable
class SharesWork(TrainingJob, Protocol):
    """A training job that computes something before its first epoch that other runs can use."""

    @property
    def shared_work(self) -> str | None:
        """Fingerprint of it, equal for runs that share it; None if there is nothing to share."""
        ...

    def share(self, context: Context) -> None:
        """Compute it into ``context.shared``, unless it is there."""
        ...


@runtime_checkable
class ChecksRequest(Protocol):
    """A training job that checks more than its keys before the output folder is opened: a refused request changes nothing."""

    def check_request(self, *, trains_here: bool) -> None:
        """Check all that can be checked without reading images.

        Args:
            trains_here: whether this process will run the job; False on the driver of a cluster.

        Raises:
            PlanError: plan or index do not fit the job.
            ModelError: the model or its weights cannot be used.
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
class DeclaresBookkeepingFolder(Protocol):
    """A job whose records, counts and quarantine list are in a folder of their own, as other programs read its output."""

    @property
    def bookkeeping_folder(self) -> str:
        """Name of the folder below ``context.out``."""
        ...
