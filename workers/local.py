"""Local job runner: runs batch and training jobs in this process. The reference for all other runners.

A batch job stores its records in parts while it runs, each written atomically::

    out/.lightwell.json               manifest: owner of the folder, and the files that runs have written there
    out/parts/part-000000.parquet     records of some batches, with the position after them
    out/records.parquet               all parts merged, after the last batch
    out/quarantine.jsonl              files that could not be used; grows while the job runs
    out/counts.json                   images read, used, replaced and skipped; read = used + replaced

With an attribute ``bookkeeping_folder`` the last three are in that folder below ``out``. A training job writes the last two
as well, for all its feeds. If it has a ``resume_point``, it continues from there, counts included.

An interrupted batch job resumes after its last undamaged part if it has a ``fingerprint()``; a job without one, another job
or another plan starts over. A finished job reuses its records, so that a change outside the fingerprint, such as the title
of a report, reads no batch. A job may also have a ``schema``, the Arrow schema of its records (default: inferred).

If ``out`` is a URI, results are written to a temporary local folder and uploaded after each part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.atomic_io import write_json
from ..pipeline.errors import PlanError
from ..pipeline.jobs.contracts import (
    Context,
    DeclaresPartFiles,
    PartWriter,
    Resumable,
    ResumePoint,
    quarantine_after,
)
from ..pipeline.jobs.progress import SilentConsole
from ..pipeline.monitor.quarantine import QUARANTINE_NAME, read_quarantine, write_quarantine
from ..pipeline.outputs.folder import OutputFolder, is_pattern
from .data_parallel import RankInfo, check_data_parallel
from .malloc import keep_freed_memory
from .metrics import JobMeter
from .output_store import OutputStore, check_output_uri, open_output_store
from .quarantine_log import QuarantineLog
from .record_store import Part, PartStore, size_and_digest
from .results import (
    BATCH_NAMES,
    COUNTS_NAME,
    RECORDS_NAME,
    TRAINING_NAMES,
    Results,
    declared_outputs,
    open_results,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from ..pipeline.jobs.contracts import (
        BatchJob,
        BatchRecords,
        Console,
        Engine,
        Feed,
        JobEngine,
        JobRun,
        Record,
        TrainingJob,
    )

EntryKey = tuple[str, str, int]

PART_IMAGES = 1024
"""Images per part: at most so many are lost by an interruption, and their records held in memory."""


def run_batch_job(
    job: BatchJob,
    engine: Engine,
    out: Path | str,
    console: Console | None = None,
    *,
    part_images: int = PART_IMAGES,
    reads: Sequence[Path | str] = (),
) -> Mapping[str, Any]:
    """Run a batch job over its view and finish it; returns its findings.

    Args:
        job: the job; each rank of its view needs its own ``out``.
        engine: makes the batches.
        out: a folder or a URI for the results, with those of an interrupted run.
        console: shows progress; None shows nothing.
        part_images: images per part.
        reads: input files that the job does not name, such as its job file.

    Raises:
        RequestError: the run would overwrite files of others or its own inputs, or another run writes to ``out``.
        OutputError: ``out`` cannot be written.
        LightwellError: errors of the plan, the feed or the job.
    """
    console = console or SilentConsole()
    with open_results(job, out, names=BATCH_NAMES, reads=reads) as results:
        fingerprint = job_fingerprint(job)
        results.folder.describe(fingerprint)
        keep_freed_memory()
        has_files = isinstance(job, DeclaresPartFiles)
        part_store = PartStore(results.folder, fingerprint, getattr(job, "schema", None), has_files)
        found = load_finished_records(job, part_store, results, console)
        if found is None:
            done = resume_parts(job, part_store, results, console)
            previous = sum_parts(done)[0]
            with (
                QuarantineLog(results.claim(QUARANTINE_NAME), previous=previous) as log,
                JobMeter(type(job).__name__) as meter,
            ):
                recorded = meter.instrument(log.record(engine))
                done += process_parts(
                    job, recorded, part_store, console, done, part_images, results.output_store.publish
                )
            found = merge_parts(job, part_store, results, done)
        findings = finish(job, engine, results, *found, console)
        part_store.clear()
        results.folder.complete()
        results.output_store.publish()
        return findings


def resume_parts(job: BatchJob, part_store: PartStore, results: Results, console: Console) -> list[Part]:
    """Load the undamaged parts of an interrupted run, and report how many there are."""
    num_listed = part_store.num_listed()
    done = part_store.resume_parts()
    if done:
        console.print(f"resuming after {sum(part.counts['read'] for part in done):,} images that are done")
    if num_listed > len(done):
        console.print(
            f"{num_listed - len(done):,} of {num_listed:,} parts belong to another job or plan, are damaged, or follow a "
            "damaged one; their images are read again"
        )
    if not done and isinstance(job, PartWriter):  # files of an earlier result are about to change
        results.folder.remove(*(name for name in declared_outputs(job) if not is_pattern(name)))
    return done


def load_finished_records(
    job: BatchJob, part_store: PartStore, results: Results, console: Console
) -> tuple[Part, pa.Table] | None:
    """Load the records of a finished run that differs only in its results, such as the title of a report."""
    name = results.name(RECORDS_NAME)
    found = None if isinstance(job, PartWriter) else part_store.load_finished_records(name)
    if found is not None and not found[1].num_rows:
        return None  # no image could be read then, which may have changed
    if found is not None:
        replaced = found[0].counts["replaced"]
        again = f"; the {replaced:,} that could not be used are not tried again" if replaced else ""
        console.print(
            f"reusing the records of all {found[0].counts['read']:,} images{again}; delete {name} to make them again"
        )
    return found


def merge_parts(
    job: BatchJob, part_store: PartStore, results: Results, parts: list[Part]
) -> tuple[Part, pa.Table]:
    """Merge all parts into one file of records; returns totals and records."""
    entries, counts = sum_parts(parts)
    left_out = sum(part.counts["left_out"] for part in parts)
    counts |= {"left_out": left_out, "unusable": counts.pop("skipped") - left_out}
    whole = Part(0, counts, tuple(entries), {})
    known = None if isinstance(job, PartWriter) else whole
    return whole, part_store.merge(parts, results.claim(RECORDS_NAME), known)


def finish(
    job: BatchJob, engine: Engine, results: Results, whole: Part, records: pa.Table, console: Console
) -> Mapping[str, Any]:
    """Write counts and quarantine list, and call the job's ``finish``; returns its findings."""
    results.claim(RECORDS_NAME)
    entries, counts = sum_parts([whole])
    write_quarantine(entries, results.claim(QUARANTINE_NAME))
    write_json(results.claim(COUNTS_NAME), counts)
    results.folder.claim(*(name for name in declared_outputs(job) if not is_pattern(name)))
    context = Context(
        engine,
        results.path,
        console,
        quarantine=tuple(entries),
        counts=counts,
        destination=results.output_store.destination,
    )
    return job.finish(records, context)


def run_training_job(
    job: TrainingJob,
    engine: Engine,
    out: Path | str,
    console: Console | None = None,
    *,
    lock: bool = True,
    reads: Sequence[Path | str] = (),
) -> Mapping[str, Any]:
    """Run a training job, or one rank's share of it; returns its final metrics.

    A job with a ``resume_point`` continues an earlier run. If ``torch.distributed`` has a process group, this process is
    one of its ranks: all use the same ``out``, and only the first writes there.

    Args:
        job: the job.
        engine: makes the batches of this process.
        out: a folder or a URI for the results, with those of an interrupted run.
        console: shows progress; None shows nothing.
        lock: False if the caller already holds the lock of ``out``.
        reads: input files that the job does not name, such as its job file.

    Raises:
        RequestError: the run would overwrite files of others or its own inputs, or another run writes to ``out``.
        OutputError: ``out`` cannot be written.
        LightwellError: errors of the plan, the feed or the job.
    """
    console = console or SilentConsole()
    check_output_uri(out)
    rank = RankInfo.from_env()
    check_data_parallel(job, rank.num_ranks)
    if not rank.is_main:
        with open_output_store(out, writes=False) as store:
            return train_rank(job, engine, store, console, rank, None)
    with open_results(job, out, names=TRAINING_NAMES, lock=lock, reads=reads) as results:
        results.folder.claim(*(name for name in declared_outputs(job) if not is_pattern(name)))
        metrics = train_rank(job, engine, results.output_store, console, rank, results)
        results.folder.complete()
        results.output_store.publish()
        return metrics


def train_rank(
    job: TrainingJob,
    engine: Engine,
    store: OutputStore,
    console: Console,
    rank: RankInfo,
    results: Results | None,
) -> Mapping[str, Any]:
    """Run a training job, or one rank's share of it, in an open output store; only the first rank has ``results``."""
    out = store.folder
    keep_freed_memory()
    start = resume_point(job, out)
    path = out / QUARANTINE_NAME if results is None else results.claim(QUARANTINE_NAME)
    log = (
        QuarantineLog(path, previous_entries(start, out), start.counts)
        if rank.is_main
        else QuarantineLog(path)
    )
    worker = f"rank {rank.rank}" if rank.num_ranks > 1 else ""
    with (
        log if rank.is_main else nullcontext(),
        JobMeter(type(job).__name__, worker) as meter,
    ):
        recorded = meter.instrument(log.record(engine))
        with recorded.feed(job.plan, rank.shard(start.view), start.position) as feed:
            gather_counts = partial(rank.gather_counts, log)
            context = Context(
                recorded,
                out,
                console,
                commit_counts=gather_counts,
                publish=store.publish,
                destination=store.destination,
            )
            metrics = job.run(feed, context)
            print_stats(feed, console)
        counts = rank.gather_counts(log)
        if results is not None:
            write_json(results.claim(COUNTS_NAME), counts)
    return metrics  # the caller publishes the folder after the quarantine log has sorted its list


def previous_entries(start: ResumePoint, out: Path) -> list[Mapping[str, Any]]:
    """Read the quarantine entries of the run that is resumed."""
    is_resumed, first = start.position is not None, start.view.first_epoch
    return [one for one in read_quarantine(out / QUARANTINE_NAME) if is_resumed or one["epoch"] < first]


def resume_point(job: TrainingJob, out: Path) -> ResumePoint:
    """Return where a training job continues; the start of its view if it is not ``Resumable``."""
    return job.resume_point(out) if isinstance(job, Resumable) else ResumePoint(job.view)


def job_fingerprint(job: BatchJob) -> str | None:
    """Return a job's fingerprint; None if it has none."""
    ask = getattr(job, "fingerprint", None)
    return str(ask()) if callable(ask) else None


def process_parts(
    job: BatchJob,
    engine: JobEngine,
    part_store: PartStore,
    console: Console,
    done: list[Part],
    num_images: int,
    publish: Callable[[], None] = lambda: None,
) -> list[Part]:
    """Process the rest of a job's view, after the parts that are done, into further parts of ``num_images`` each."""
    parts: list[Part] = []
    known = {entry_key(entry) for part in done for entry in part.quarantine}
    num_found = 0
    position = done[-1].position if done else None
    with engine.open_job(job, position) as run:
        if not run.num_batches:
            return parts
        unusable = run.counts["skipped"]
        batches = console.track(run, type(job).__name__)
        full = partial(is_part_full, job, num_images)
        while (part := collect_part(run, batches, full)) is not None:
            counts, part_records = {**part[0], "unusable": unusable}, part[1]
            number = len(done) + len(parts)
            found = quarantine_after(run, num_found)
            num_found += len(found)
            entries = new_entries(found, known)
            records, files = write_job_part(job, part_records, number, part_store.output)
            parts.append(Part(number, counts, entries, run.position(), files))
            part_store.write(parts[-1], records)
            publish()
        print_stats(run, console)
    return parts


def collect_part(
    run: JobRun, batches: Iterator[BatchRecords], full: Callable[[Sequence[Record], int], bool]
) -> tuple[dict[str, int], list[Record]] | None:
    """Collect batches until a part is full; returns counts and records, or None at the end."""
    skipped = run.counts["skipped"]
    records: list[Record] = []
    num_batches = num_read = num_used = 0
    for batch in batches:
        num_batches += 1
        records += batch.records
        num_read += batch.num_read
        num_used += batch.num_used
        if full(records, num_read):
            break
    left_out = run.counts["skipped"] - skipped  # including batches without a usable image
    if not num_batches and not left_out:
        return None
    counts = {"read": num_read, "used": num_used, "replaced": num_read - num_used, "left_out": left_out}
    return counts, records


def is_part_full(job: BatchJob, most_images: int, records: Sequence[Record], num_images: int) -> bool:
    """Return whether a part is full; a ``PartWriter`` decides itself."""
    return job.is_full(records) if isinstance(job, PartWriter) else num_images >= most_images


def write_job_part(
    job: BatchJob, records: Sequence[Record], part: int, output: OutputFolder
) -> tuple[Sequence[Record], dict[str, list[Any]]]:
    """Let a ``PartWriter`` write a part; returns the records to keep, and sizes and digests of its files."""
    if not isinstance(job, PartWriter):
        return records, {}
    names = job.part_files(records, part) if isinstance(job, DeclaresPartFiles) else ()
    output.claim(*names)
    slim = job.write_part(records, part, output.path)
    found = {name: size_and_digest(output.path / name) for name in names}
    missing = [name for name, digest in found.items() if digest is None]
    if missing:
        raise PlanError(
            f"{type(job).__name__}: expected `write_part` to write all `part_files`, got no {missing[0]!r}; correct the job"
        )
    return slim, {name: digest for name, digest in found.items() if digest is not None}


def new_entries(entries: Sequence[Mapping[str, Any]], known: set[EntryKey]) -> tuple[Mapping[str, Any], ...]:
    """Return the entries that no earlier part has, and add them to ``known``; repeating all would cost quadratic space."""
    new = {entry_key(entry): entry for entry in entries if entry_key(entry) not in known}
    known.update(new)
    return tuple(new.values())


def entry_key(entry: Mapping[str, Any]) -> EntryKey:
    """Return the key that identifies a quarantine entry."""
    return entry["key"], entry["step"], entry["epoch"]


def print_stats(feed: Feed | JobRun, console: Console) -> None:
    """Print where a feed's time went and its bottleneck."""
    for line in feed.stats().lines():
        console.print(line)


def sum_parts(parts: list[Part]) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Merge the quarantine entries of parts, one per file and step, and sum their counts."""
    entries = {(entry["key"], entry["step"]): entry for part in parts for entry in part.quarantine}
    counts = {name: sum(part.counts[name] for part in parts) for name in ("read", "used", "replaced")}
    counts["skipped"] = sum(part.counts["left_out"] for part in parts)
    counts["skipped"] += max((part.counts["unusable"] for part in parts), default=0)
    return [entries[name] for name in sorted(entries)], counts
