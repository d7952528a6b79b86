"""``lightwell materialize``: write processed images to shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .engine import engine_options, open_engine
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
    plan: Annotated[Path, typer.Argument(help="Plan, or job file that contains one (YAML).")],
    out: Annotated[
        str,
        typer.Option(
            "--out", help="Output folder for shards and their index, or a URI such as s3://bucket/shards."
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            "--format", help="Shard format: tar (WebDataset; its index can be used in plans) or parquet."
        ),
    ] = "tar",
    encoding: Annotated[
        str,
        typer.Option(
            help="Image encoding: png, jpeg, or npy (also for float images of plans with Normalize)."
        ),
    ] = "png",
    quality: Annotated[int, typer.Option(help="JPEG quality, 1 to 100.")] = 95,
    split: Annotated[str | None, typer.Option(help="Split to write (default: all).")] = None,
    augment: Annotated[bool, typer.Option("--augment", help="Write the augmented training view.")] = False,
    epochs: Annotated[int, typer.Option(help="Number of augmented epochs, with --augment.")] = 1,
    shard_images: Annotated[int, typer.Option(help="Images per shard.")] = 4096,
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
    """Write the images, labels, masks and boxes that a plan yields to shards; rerun with the same --out to resume.

    Bad images are left out and listed in quarantine.jsonl; read = written + replaced.

    Example: lightwell materialize plan.yaml --out shards --split train
    """
    from ..pipeline.config.checked_model import build_checked
    from ..pipeline.export.materialize import Materialize
    from ..pipeline.jobs.job_file import load_plan
    from ..pipeline.jobs.progress import console_for
    from ..workers.local import run_batch_job

    options = engine_options(locals())
    values = {
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
    job = build_checked(Materialize, values, where="materialize", folder=Path())
    found = run_batch_job(job, open_engine(**options), out, console_for(quiet=quiet or as_json), reads=[plan])
    if as_json:
        print_json(found)
    elif not quiet:
        print(
            f"wrote {found['written']:,} images into {found['shards']:,} shards below {out} "
            f"({found['read']:,} read, {found['replaced']:,} bad and left out, {found['skipped']:,} skipped)"
        )
