"""Runs jobs in this process. It is the reference for every other way of running them.

A batch job's records are kept in parts while it runs, each written whole::

    out/.lightwell.json               whose folder it is, and which files runs have written there
    out/parts/part-000000.parquet     records of some batches, and how far they reach
    out/records.parquet               all parts, once the last batch is done
    out/quarantine.jsonl              files that could not be used; grows while the job runs
    out/counts.json                   images read, used, replaced and skipped; read = used + replaced

A job with an attribute ``bookkeeping_folder`` has the last three in that folder below ``out``. A training job writes the
latter two as well, of all its feeds. One that says what is ``resume_point`` goes on where it stood, and its counts do too.

Interrupted, the same batch job goes on after its last undamaged part, if it has a ``fingerprint()``; a job without one,
another job or another plan starts anew. Once all is done the same job takes its records, so that what the fingerprint
leaves out, such as the title of a report, costs no batch. A job may also have a ``schema``, the Arrow schema of its
records; without it the types are taken from the records.

``out`` may be a URI; then results are made in a temporary folder of this machine, and copied after each part.
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
from .data_parallel import Peers, check_shares
from .malloc import keep_freed_memory
from .metrics import JobMeter
from .output_store import Place, check_known, opened
from .quarantine_log import Ledger
from .record_store import Part, PartStore, measure
from .results import (
    BATCH_NAMES,
    COUNTS_NAME,
    RECORDS_NAME,
    TRAINING_NAMES,
    Results,
    declared_by,
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

Entry = tuple[str, str, int]

PART_IMAGES = 1024
"""Images after which a part is written: what an interruption costs at most, and what memory holds."""


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
        job: what is run; another rank of its view needs another ``out``.
        engine: makes the batches.
        out: a folder or a URI, where results go and an interrupted run has left its own.
        console: shows progress; None shows nothing.
        part_images: images after which a part is written.
        reads: files that the run reads and that the job does not name, such as its job file.

    Raises:
        RequestError: ``out`` holds files of others where the run would write, another run writes there, or the run would
            write over what it reads.
        OutputError: ``out`` cannot be written.
        LightwellError: whatever the plan, the feed or the job raise.
    """
    console = console or SilentConsole()
    with open_results(job, out, names=BATCH_NAMES, reads=reads) as results:
        fingerprint = fingerprint_of(job)
        results.folder.describe(fingerprint)
        keep_freed_memory()
        has_files = isinstance(job, DeclaresPartFiles)
        store = PartStore(results.folder, fingerprint, getattr(job, "schema", None), has_files)
        found = finished(job, store, results, console)
        if found is None:
            done = take_up(job, store, results, console)
            before = add_up(done)[0]
            with (
                Ledger(results.claim(QUARANTINE_NAME), before=before) as ledger,
                JobMeter(type(job).__name__) as meter,
            ):
                watched = meter.watch(ledger.watch(engine))
                done += read_parts(job, watched, store, console, done, part_images, results.place.publish)
            found = merged(job, store, results, done)
        findings = finish(job, engine, results, *found, console)
        store.clear()
        results.folder.complete()
        results.place.publish()
        return findings


def take_up(job: BatchJob, store: PartStore, results: Results, console: Console) -> list[Part]:
    """Take up the undamaged parts of an interrupted run, and say how many there are."""
    num_listed = store.num_listed()
    done = store.take_up()
    if done:
        console.print(f"taking up after {sum(part.counts['read'] for part in done):,} images that are done")
    if num_listed > len(done):
        console.print(
            f"{num_listed - len(done):,} of {num_listed:,} parts are of another job or plan, damaged, or behind a damaged "
            "one; their images are read again"
        )
    if not done and isinstance(job, PartWriter):  # the files that an earlier result lists are about to change
        results.folder.remove(*(name for name in declared_by(job) if not is_pattern(name)))
    return done


def finished(
    job: BatchJob, store: PartStore, results: Results, console: Console
) -> tuple[Part, pa.Table] | None:
    """Take the records of a finished run that only its results differ from, such as a report with another title."""
    name = results.name(RECORDS_NAME)
    found = None if isinstance(job, PartWriter) else store.finished(name)
    if found is not None and not found[1].num_rows:
        return None  # nothing could be read then: it may be there now
    if found is not None:
        replaced = found[0].counts["replaced"]
        again = f"; those that could not be used ({replaced:,}) are not tried again" if replaced else ""
        console.print(
            f"the records of all {found[0].counts['read']:,} images are there{again}; delete {name} to make them anew"
        )
    return found


def merged(job: BatchJob, store: PartStore, results: Results, parts: list[Part]) -> tuple[Part, pa.Table]:
    """Merge all parts into the records; returns them with what they hold, as one part."""
    entries, counts = add_up(parts)
    left_out = sum(part.counts["left_out"] for part in parts)
    counts |= {"left_out": left_out, "unusable": counts.pop("skipped") - left_out}
    whole = Part(0, counts, tuple(entries), {})
    noted = None if isinstance(job, PartWriter) else whole
    return whole, store.merge(parts, results.claim(RECORDS_NAME), noted)


def finish(
    job: BatchJob, engine: Engine, results: Results, whole: Part, records: pa.Table, console: Console
) -> Mapping[str, Any]:
    """Write what is counted and let the job write its results; returns its findings."""
    results.claim(RECORDS_NAME)
    entries, counts = add_up([whole])
    write_quarantine(entries, results.claim(QUARANTINE_NAME))
    write_json(results.claim(COUNTS_NAME), counts)
    results.folder.claim(*(name for name in declared_by(job) if not is_pattern(name)))
    context = Context(
        engine,
        results.path,
        console,
        quarantine=tuple(entries),
        counts=counts,
        destination=results.place.destination,
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
    """Run a training job on its view, or one rank's part of it; returns its final metrics.

    A job that can go on where an earlier run stood says what is ``resume_point``. Where ``torch.distributed`` has a process
    group this is one of its ranks: all have the same ``out``, where only the first writes.

    Args:
        job: what is run.
        engine: makes the batches of this process.
        out: a folder or a URI, where results go and an interrupted run has left its own.
        console: shows progress; None shows nothing.
        lock: False where the caller keeps other runs from writing to ``out``.
        reads: files that the run reads and that the job does not name, such as its job file.

    Raises:
        RequestError: ``out`` holds files of others where the run would write, another run writes there, or the run would
            write over what it reads.
        OutputError: ``out`` cannot be written.
        LightwellError: whatever the plan, the feed or the job raise.
    """
    console = console or SilentConsole()
    check_known(out)
    peers = Peers.here()
    check_shares(job, peers.num_ranks)
    if not peers.leads:
        with opened(out, writes=False) as place:
            return train_rank(job, engine, place, console, peers, None)
    with open_results(job, out, names=TRAINING_NAMES, lock=lock, reads=reads) as results:
        results.folder.claim(*(name for name in declared_by(job) if not is_pattern(name)))
        metrics = train_rank(job, engine, results.place, console, peers, results)
        results.folder.complete()
        results.place.publish()
        return metrics


def train_rank(
    job: TrainingJob,
    engine: Engine,
    place: Place,
    console: Console,
    peers: Peers,
    results: Results | None,
) -> Mapping[str, Any]:
    """Run a training job, or one rank's part of it, in an open place; only the first rank has results."""
    out = place.folder
    keep_freed_memory()
    left = resume_point(job, out)
    path = out / QUARANTINE_NAME if results is None else results.claim(QUARANTINE_NAME)
    ledger = Ledger(path, entries_before(left, out), left.counts) if peers.leads else Ledger(path)
    worker = f"rank {peers.rank}" if peers.num_ranks > 1 else ""
    with ledger if peers.leads else nullcontext(), JobMeter(type(job).__name__, worker) as meter:
        watched = meter.watch(ledger.watch(engine))
        with watched.feed(job.plan, peers.share(left.view), left.position) as feed:
            tally = partial(peers.tally, ledger)
            context = Context(
                watched,
                out,
                console,
                commit_counts=tally,
                publish=place.publish,
                destination=place.destination,
            )
            metrics = job.run(feed, context)
            say_stats(feed, console)
        counts = peers.tally(ledger)
        if results is not None:
            write_json(results.claim(COUNTS_NAME), counts)
    return metrics  # what is in the folder is published with the list in order, as the ledger leaves it


def entries_before(left: ResumePoint, out: Path) -> list[Mapping[str, Any]]:
    """Read what the run that is gone on with could not use."""
    goes_on, first = left.position is not None, left.view.first_epoch
    return [one for one in read_quarantine(out / QUARANTINE_NAME) if goes_on or one["epoch"] < first]


def resume_point(job: TrainingJob, out: Path) -> ResumePoint:
    """Ask a training job what is left of it; all of it, if it cannot say."""
    return job.resume_point(out) if isinstance(job, Resumable) else ResumePoint(job.view)


def fingerprint_of(job: BatchJob) -> str | None:
    """Ask a job for what decides its records; None where it cannot say."""
    ask = getattr(job, "fingerprint", None)
    return str(ask()) if callable(ask) else None


def read_parts(
    job: BatchJob,
    engine: JobEngine,
    store: PartStore,
    console: Console,
    done: list[Part],
    num_images: int,
    publish: Callable[[], None] = lambda: None,
) -> list[Part]:
    """Turn what is left of a job's view, behind the parts that are done, into more parts of so many images."""
    parts: list[Part] = []
    noted = {entry_of(entry) for part in done for entry in part.quarantine}
    num_found = 0
    position = done[-1].position if done else None
    with engine.open_job(job, position) as work:
        if not work.num_batches:
            return parts
        unusable = work.counts["skipped"]
        batches = console.track(work, type(job).__name__)
        full = partial(is_full, job, num_images)
        while (part := read_part(work, batches, full)) is not None:
            counts, gathered = {**part[0], "unusable": unusable}, part[1]
            number = len(done) + len(parts)
            found = quarantine_after(work, num_found)
            num_found += len(found)
            entries = fresh_entries(found, noted)
            records, files = kept(job, gathered, number, store.output)
            parts.append(Part(number, counts, entries, work.position(), files))
            store.write(parts[-1], records)
            publish()
        say_stats(work, console)
    return parts


def read_part(
    work: JobRun, batches: Iterator[BatchRecords], full: Callable[[Sequence[Record], int], bool]
) -> tuple[dict[str, int], list[Record]] | None:
    """Gather worked batches until they make a part; returns counts and records, or None at the end."""
    skipped = work.counts["skipped"]
    records: list[Record] = []
    num_batches = num_read = num_used = 0
    for batch in batches:
        num_batches += 1
        records += batch.records
        num_read += batch.num_read
        num_used += batch.num_used
        if full(records, num_read):
            break
    left_out = work.counts["skipped"] - skipped  # those of batches with no image left among them
    if not num_batches and not left_out:
        return None
    counts = {"read": num_read, "used": num_used, "replaced": num_read - num_used, "left_out": left_out}
    return counts, records


def is_full(job: BatchJob, most_images: int, records: Sequence[Record], num_images: int) -> bool:
    """Say whether a part is large enough, or let a job that writes its own files say so."""
    return job.is_full(records) if isinstance(job, PartWriter) else num_images >= most_images


def kept(
    job: BatchJob, records: Sequence[Record], part: int, output: OutputFolder
) -> tuple[Sequence[Record], dict[str, list[Any]]]:
    """Let a job that writes its own files write a part; returns what stands for it, and its files' sizes and digests."""
    if not isinstance(job, PartWriter):
        return records, {}
    names = job.part_files(records, part) if isinstance(job, DeclaresPartFiles) else ()
    output.claim(*names)
    slim = job.write_part(records, part, output.path)
    found = {name: measure(output.path / name) for name in names}
    missing = [name for name, told in found.items() if told is None]
    if missing:
        raise PlanError(
            f"{type(job).__name__}: expected `write_part` to write what `part_files` lists, got no {missing[0]!r}; correct the job"
        )
    return slim, {name: told for name, told in found.items() if told is not None}


def fresh_entries(entries: Sequence[Mapping[str, Any]], noted: set[Entry]) -> tuple[Mapping[str, Any], ...]:
    """Take the entries that no earlier part holds, and note them: a list for each part would grow with its square."""
    fresh = {entry_of(entry): entry for entry in entries if entry_of(entry) not in noted}
    noted.update(fresh)
    return tuple(fresh.values())


def entry_of(entry: Mapping[str, Any]) -> Entry:
    """Say what tells a quarantine entry from others."""
    return entry["key"], entry["step"], entry["epoch"]


def say_stats(feed: Feed | JobRun, console: Console) -> None:
    """Say where a feed's time went and what would have to be faster."""
    for line in feed.stats().lines():
        console.print(line)


def add_up(parts: list[Part]) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Join the quarantine entries of parts, each file and step once, and add their counts."""
    entries = {(entry["key"], entry["step"]): entry for part in parts for entry in part.quarantine}
    counts = {name: sum(part.counts[name] for part in parts) for name in ("read", "used", "replaced")}
    counts["skipped"] = sum(part.counts["left_out"] for part in parts)
    counts["skipped"] += max((part.counts["unusable"] for part in parts), default=0)
    return [entries[name] for name in sorted(entries)], counts
