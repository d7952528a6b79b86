"""The command ``lightwell materialize``: from words to a job; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .engine import open_engine
from .options import (
    Address,
    AllowImport,
    CpusPerWorker,
    EngineName,
    EngineOption,
    GpusPerWorker,
    JobWorkers,
    Json,
    Memory,
    Placement,
    PlacementName,
    Quiet,
    Threads,
    Workers,
)
from .output import configure_logging, print_json


def materialize(
    plan: Annotated[Path, typer.Argument(help="A plan, or a job file with a plan in it.")],
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Folder for the shards and their index, or a URI such as s3://bucket/shards."
        ),
    ],
    kind: Annotated[
        str, typer.Option("--format", help="tar (WebDataset; other plans read its index) or parquet.")
    ] = "tar",
    encoding: Annotated[
        str, typer.Option(help="png, jpeg, or npy, which also takes the floats of a plan with Normalize.")
    ] = "png",
    quality: Annotated[int, typer.Option(help="Of jpeg, 1 to 100.")] = 95,
    split: Annotated[str | None, typer.Option(help="Only this split; all without it.")] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Write the training view.")] = False,
    epochs: Annotated[int, typer.Option(help="Draw so many times; with --augment.")] = 1,
    shard_images: Annotated[int, typer.Option(help="Images after which a shard is full.")] = 4096,
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    placement: Placement = PlacementName.colocated,
    job_workers: JobWorkers = 1,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write what a plan yields: images, labels, masks and boxes; again with the same --out does only the rest.

    Bad images are left out and listed in quarantine.jsonl; read = written + replaced.

    Example: lightwell materialize plan.yaml --out shards --split train
    """
    from ..pipeline.config.checked_model import build_checked
    from ..pipeline.export.materialize import Materialize
    from ..pipeline.jobs.job_file import load_plan
    from ..pipeline.jobs.progress import console_for
    from ..workers.local import run_batch_job

    asked = {
        "plan": load_plan(plan, allow_import=allow_import or ()),
        "format": kind,
        "encoding": encoding,
        "quality": quality,
        "split": split,
        "augment": augment,
        "epochs": epochs,
        "shard_images": shard_images,
    }
    configure_logging(quiet=quiet)
    job = build_checked(Materialize, asked, where="materialize", folder=Path())
    asked_engine = open_engine(
        engine,
        threads=threads,
        memory=memory,
        address=address,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        gpus_per_worker=gpus_per_worker,
        placement=placement,
        job_workers=job_workers,
    )
    found = run_batch_job(job, asked_engine, out, console_for(quiet=quiet or as_json), reads=[plan])
    if as_json:
        print_json(found)
    elif not quiet:
        print(
            f"wrote {found['written']:,} images into {found['shards']:,} shards below {out} "
            f"({found['read']:,} read, {found['replaced']:,} bad and left out, {found['skipped']:,} skipped)"
        )
