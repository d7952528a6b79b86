"""Runs jobs in this process. It is the reference for every other way of running them.

A batch job's records are kept in parts while it runs, each written aside and renamed::

    out/parts/part-000000.parquet     records of some batches, and how far they reach
    out/records.parquet               all parts, once the last batch is done
    out/quarantine.jsonl              files that could not be used; grows while the job runs
    out/counts.json                   images read, used, replaced and skipped; read = used + replaced

A training job writes the latter two as well, of all its feeds. One that says what is ``remaining`` goes on where it stood,
and its counts do too.

Interrupted, the same batch job takes up after its last whole part, if it has a ``fingerprint()``; a job without one,
another job or another plan starts anew. A job may also have a ``schema``, the Arrow schema of its
records; without it the types are taken from the records.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import OutputError
from ..pipeline.jobs import (
    Context,
    KeepsParts,
    Remaining,
    Resumes,
    found_after,
    require_batch_job,
    require_training_job,
)
from ..pipeline.progress import SilentConsole
from ..pipeline.quarantine import QUARANTINE_NAME, read_quarantine, write_quarantine
from .heap import keep_freed_memory
from .ledger import Ledger
from .metrics import JobMeter
from .parts import Part, PartStore
from .peers import Peers, check_shares

if TYPE_CHECKING:
    from ..pipeline.jobs import (
        BatchJob,
        Console,
        Engine,
        Feed,
        Record,
        TrainingJob,
        Work,
        WorkedBatch,
        WorksJobs,
    )

Entry = tuple[str, str, int]

PART_IMAGES = 1024
"""Images after which a part is written: what an interruption costs at most, and what memory holds."""


def run_batch_job(
    job: BatchJob,
    engine: Engine,
    out: Path,
    console: Console | None = None,
    *,
    part_images: int = PART_IMAGES,
) -> Mapping[str, Any]:
    """Run a batch job over its view and finish it; returns its findings.

    Args:
        job: what is run; another rank of its view needs another ``out``.
        engine: makes the batches.
        out: where results go, and what an interrupted run has left.
        console: shows progress; None shows nothing.
        part_images: images after which a part is written.

    Raises:
        PlanError: the job is no batch job.
        OutputError: ``out`` cannot be written.
        LightwellError: whatever the plan, the feed or the job raise.
    """
    require_batch_job(job)
    console = console or SilentConsole()
    check_writable(out)
    keep_freed_memory()
    sweep(out)
    store = PartStore(out / "parts", fingerprint_of(job), getattr(job, "schema", None))
    done = store.take_up()
    if done:
        console.say(f"taking up after {sum(part.counts['read'] for part in done):,} images that are done")
    with Ledger(out, before=add_up(done)[0]) as ledger, JobMeter(type(job).__name__) as meter:
        done += read_parts(job, meter.watch(ledger.watch(engine)), store, console, done, part_images)
    records = store.merge(out / "records.parquet")
    entries, counts = add_up(done)
    write_quarantine(entries, out / QUARANTINE_NAME)
    write_json(counts, out / "counts.json")
    findings = job.finish(records, Context(engine, out, console, quarantine=tuple(entries), counts=counts))
    store.clear()
    return findings


def nothing() -> None:
    """Results stay where they are."""


def run_training_job(
    job: TrainingJob,
    engine: Engine,
    out: Path,
    console: Console | None = None,
    *,
    publish: Callable[[], None] = nothing,
    kept_at: str | None = None,
) -> Mapping[str, Any]:
    """Run a training job on its view, or one rank's part of it; returns its final metrics.

    A job that can go on where an earlier run stood says what is ``remaining``. Where ``torch.distributed`` has a process
    group this is one of its ranks: all have the same ``out``, where only the first writes.

    Args:
        job: what is run.
        engine: makes the batches of this process.
        out: where results go, and what an interrupted run has left.
        console: shows progress; None shows nothing.
        publish: called when what is in ``out`` is whole, on every rank.
        kept_at: where it is copied to, if it is.

    Raises:
        PlanError: the job is no training job.
        OutputError: ``out`` cannot be written.
        LightwellError: whatever the plan, the feed or the job raise.
    """
    require_training_job(job)
    console = console or SilentConsole()
    peers = Peers.here()
    check_shares(job, peers.num_ranks)
    if peers.leads:
        check_writable(out)
        sweep(out)
    keep_freed_memory()
    left = remaining(job, out)
    ledger = Ledger(out, entries_before(left, out), left.counts) if peers.leads else Ledger(out)
    worker = f"rank {peers.rank}" if peers.num_ranks > 1 else ""
    with ledger if peers.leads else nullcontext(), JobMeter(type(job).__name__, worker) as meter:
        watched = meter.watch(ledger.watch(engine))
        with watched.feed(job.plan, peers.share(left.view), left.position) as feed:
            tally = partial(peers.tally, ledger)
            context = Context(
                watched, out, console, tally=tally, publish=publish, kept_at=kept_at or str(out)
            )
            metrics = job.run(feed, context)
            say_stats(feed, console)
        counts = peers.tally(ledger)
        if peers.leads:
            write_json(counts, out / "counts.json")
    publish()  # with the list in order, as the ledger leaves it
    return metrics


def entries_before(left: Remaining, out: Path) -> list[Mapping[str, Any]]:
    """Read what the run that is gone on with could not use."""
    goes_on, first = left.position is not None, left.view.first_epoch
    return [one for one in read_quarantine(out / QUARANTINE_NAME) if goes_on or one["epoch"] < first]


def remaining(job: TrainingJob, out: Path) -> Remaining:
    """Ask a training job what is left of it; all of it, if it cannot say."""
    return job.remaining(out) if isinstance(job, Resumes) else Remaining(job.view)


def check_writable(out: Path) -> None:
    """Make the output folder and try to write into it, before any work is done.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(
            f"--out: wanted a folder that can be written, got {str(out)!r} ({error.strerror or error}); "
            "choose another, or give yourself the right to write there"
        ) from error


def sweep(out: Path) -> None:
    """Take away what a killed run was writing aside."""
    for path in out.glob(".*.tmp"):
        path.unlink()


def fingerprint_of(job: BatchJob) -> str | None:
    """Ask a job for what decides its records; None where it cannot say."""
    ask = getattr(job, "fingerprint", None)
    return str(ask()) if callable(ask) else None


def read_parts(
    job: BatchJob, engine: WorksJobs, store: PartStore, console: Console, done: list[Part], num_images: int
) -> list[Part]:
    """Turn what is left of a job's view, behind the parts that are done, into more parts of so many images."""
    parts: list[Part] = []
    noted = {entry_of(entry) for part in done for entry in part.quarantine}
    num_found = 0
    position = done[-1].position if done else None
    with engine.work(job, position) as work:
        if not work.num_batches:
            return parts
        unusable = work.counts["skipped"]
        batches = console.track(work, type(job).__name__)
        full = partial(is_full, job, num_images)
        while (part := read_part(work, batches, full)) is not None:
            counts, gathered = {**part[0], "unusable": unusable}, part[1]
            number = len(done) + len(parts)
            found = found_after(work, num_found)
            num_found += len(found)
            entries = fresh_entries(found, noted)
            parts.append(Part(number, counts, entries, work.position()))
            store.write(parts[-1], kept(job, gathered, number, store.folder.parent))
        say_stats(work, console)
    return parts


def read_part(
    work: Work, batches: Iterator[WorkedBatch], full: Callable[[Sequence[Record], int], bool]
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
    return job.is_full(records) if isinstance(job, KeepsParts) else num_images >= most_images


def kept(job: BatchJob, records: Sequence[Record], part: int, out: Path) -> Sequence[Record]:
    """Let a job that writes its own files write a part; returns what stands for it."""
    return job.keep(records, part, out) if isinstance(job, KeepsParts) else records


def fresh_entries(entries: Sequence[Mapping[str, Any]], noted: set[Entry]) -> tuple[Mapping[str, Any], ...]:
    """Take the entries that no earlier part holds, and note them: a list for each part would grow with its square."""
    fresh = {entry_of(entry): entry for entry in entries if entry_of(entry) not in noted}
    noted.update(fresh)
    return tuple(fresh.values())


def entry_of(entry: Mapping[str, Any]) -> Entry:
    """Say what tells a quarantine entry from others."""
    return entry["key"], entry["step"], entry["epoch"]


def say_stats(feed: Feed | Work, console: Console) -> None:
    """Say where a feed's time went and what would have to be faster."""
    for line in feed.stats().lines():
        console.say(line)


def add_up(parts: list[Part]) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Join the quarantine entries of parts, each file and step once, and add their counts."""
    entries = {(entry["key"], entry["step"]): entry for part in parts for entry in part.quarantine}
    counts = {name: sum(part.counts[name] for part in parts) for name in ("read", "used", "replaced")}
    counts["skipped"] = sum(part.counts["left_out"] for part in parts)
    counts["skipped"] += max((part.counts["unusable"] for part in parts), default=0)
    return [entries[name] for name in sorted(entries)], counts


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write JSON aside, then rename."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
