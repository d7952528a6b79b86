"""Runs batch and training jobs in this process; engines may do their work elsewhere.

A batch job keeps the records of its stages while it runs, each file written atomically::

    out/.lightwell.json                      manifest: owner of the folder, and the files that runs have written there
    out/stages/NAME-FINGERPRINT/             records of a stage; see ``record_store``
    out/stages/job.yaml                      the job, for ``lightwell report``
    out/quarantine.jsonl                     files that could not be used in any stage; grows while the job runs
    out/counts.json                          images read, used, replaced and skipped by the first stage

With an attribute ``bookkeeping_folder`` these are in that folder below ``out``. A training job writes the last two as well,
for all its feeds. If it has a ``resume_point``, it continues from there, counts included.

A stage that is interrupted resumes after its last undamaged part, and one that is finished is not run again, on whichever
engine. Only stages whose fingerprint changed run, and those that need them. Records of finished stages stay until they are
deleted, so that going back to earlier settings runs nothing either.

If ``out`` is a URI, results are written to a temporary local folder and uploaded after each part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.atomic_io import write_json, write_text
from ..pipeline.errors import RequestError
from ..pipeline.jobs.contracts import ChecksRequest, Context, Resumable, ResumePoint
from ..pipeline.jobs.progress import SilentConsole
from ..pipeline.jobs.stages import stage_keys, stages_of
from ..pipeline.monitor.quarantine import QUARANTINE_NAME, read_quarantine
from ..pipeline.outputs.folder import is_pattern
from .batch_run import BatchRun
from .data_parallel import RankInfo, check_data_parallel
from .malloc import keep_freed_memory
from .metrics import JobMeter
from .output_store import OutputStore, check_output_uri, open_output_store
from .quarantine_log import QuarantineLog
from .record_store import RECORDS
from .results import COUNTS_NAME, JOB_NAME, Results, declared_outputs, open_results, stage_folder

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Console, Engine, Feed, TrainingJob
    from ..pipeline.jobs.stages import AnyBatchJob

PART_IMAGES = 1024
"""Images per part: at most so many are lost by an interruption, and their records held in memory."""


def run_batch_job(
    job: AnyBatchJob,
    engine: Engine,
    out: Path | str,
    console: Console | None = None,
    *,
    part_images: int = PART_IMAGES,
    reads: Sequence[Path | str] = (),
    job_text: str | None = None,
) -> Mapping[str, Any]:
    """Run the stages of a batch job that are not done yet, and finish it; returns its findings.

    Args:
        job: the job; each rank of its view needs its own ``out``.
        engine: runs the stages.
        out: a folder or a URI for the results, with those of an interrupted run.
        console: shows progress; None shows nothing.
        part_images: images per part.
        reads: input files that the job does not name, such as its job file.
        job_text: the job as YAML, kept for ``lightwell report``; see ``dump_job``.

    Raises:
        RequestError: the run would overwrite files of others or its own inputs, or another run writes to ``out``.
        OutputError: ``out`` cannot be written.
        LightwellError: errors of the plan, the feed or the job.
    """
    console = console or SilentConsole()
    stages = stages_of(job)
    keys = stage_keys(stages)
    with open_results(job, out, stages=tuple(keys.values()), reads=reads) as results:
        results.folder.describe(stages=keys)
        keep_freed_memory()
        run = BatchRun(job, engine, results, console, keys)
        with JobMeter(type(job).__name__) as meter:
            for stage in stages:
                run.run_stage(stage, meter, part_images)
        if job_text is not None:
            write_text(results.claim(JOB_NAME), job_text)
        findings = run.finish()
        for stage in stages:
            run.store(stage).clear()
        results.folder.complete(keep=(results.name(f"{stage_folder('*')}/{RECORDS}"),))
        results.output_store.publish()
        return findings


def rewrite_results(
    job: AnyBatchJob, engine: Engine, out: Path | str, console: Console | None = None
) -> Mapping[str, Any]:
    """Call a job's ``finish`` again with the records of its last run; returns its findings.

    Nothing is read but the records in ``out``: neither index, images nor model have to exist.

    Args:
        job: the job, from ``load_saved_job``.
        engine: available to the job, for what it may still read.
        out: the folder or URI of a finished run.
        console: shows progress; None shows nothing.

    Raises:
        RequestError: ``out`` is not the folder of a finished run of this job, or another run writes there.
        OutputError: ``out`` cannot be written.
    """
    console = console or SilentConsole()
    stages = stages_of(job)
    with open_results(job, out, check_inputs=False) as results:
        results.folder.claim(*results.folder.owned)  # all of it stays
        run = BatchRun(job, engine, results, console, results.folder.stages)
        for stage in stages:
            if not run.load_stage(stage):
                raise RequestError(
                    f"report: expected the records of stage {stage.name} in {str(out)!r}, got none, or damaged ones; run the "
                    "job again, which makes only what is missing"
                )
        findings = run.finish()
        results.folder.complete()
        results.output_store.publish()
        return findings


def run_training_job(
    job: TrainingJob,
    engine: Engine,
    out: Path | str,
    console: Console | None = None,
    *,
    lock: bool = True,
    reads: Sequence[Path | str] = (),
    shared: Path | None = None,
) -> Mapping[str, Any]:
    """Run a training job, or one rank's share of it; returns its final metrics.

    A job with a ``resume_point`` continues an earlier run. If ``torch.distributed`` has a process group, this process is
    one of its ranks: all use the same ``out``, and only the first writes there.

    Args:
        job: the job.
        engine: makes the batches of this process.
        out: a folder or a URI for the results, with those of an interrupted run.
        console: shows progress; None shows nothing.
        lock: False if the caller already holds the lock of ``out`` and has checked the request.
        reads: input files that the job does not name, such as its job file.
        shared: folder that several runs have in common; see ``Context``.

    Raises:
        RequestError: the run would overwrite files of others or its own inputs, or another run writes to ``out``.
        OutputError: ``out`` cannot be written.
        LightwellError: errors of the plan, the feed or the job.
    """
    console = console or SilentConsole()
    check_output_uri(out)
    rank = RankInfo.from_env()
    check_data_parallel(job, rank.num_ranks)
    if lock:
        check_request(job, trains_here=True)
    if not rank.is_main:
        with open_output_store(out, writes=False) as store:
            return train_rank(job, engine, store, console, rank, None, shared)
    with open_results(job, out, lock=lock, reads=reads) as results:
        results.folder.claim(*(name for name in declared_outputs(job) if not is_pattern(name)))
        metrics = train_rank(job, engine, results.output_store, console, rank, results, shared)
        results.folder.complete()
        results.output_store.publish()
        return metrics


def check_request(job: TrainingJob, *, trains_here: bool) -> None:
    """Call a job's own check before its output folder is opened, if it has one; raises like ``ChecksRequest``."""
    if isinstance(job, ChecksRequest):
        job.check_request(trains_here=trains_here)


def train_rank(
    job: TrainingJob,
    engine: Engine,
    store: OutputStore,
    console: Console,
    rank: RankInfo,
    results: Results | None,
    shared: Path | None = None,
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
                shared=shared,
            )
            metrics = job.run(feed, context)
            if feed.counts["read"]:  # else the job read other feeds, or none
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


def print_stats(feed: Feed, console: Console) -> None:
    """Print where a feed's time went and its bottleneck."""
    for line in feed.stats().lines():
        console.print(line)
