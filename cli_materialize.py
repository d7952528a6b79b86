"""The command ``lightwell materialize``: from words to a job; no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_tables import print_json


def materialize(
    plan: Annotated[Path, typer.Argument(help="A plan, or a job file with a plan in it.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the shards and their index.")],
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
    threads: Annotated[int, typer.Option(help="Threads that decode and augment; 0: one for each core.")] = 0,
    memory: Annotated[
        str | None,
        typer.Option(help="What may be in flight, such as 2G; a quarter of the machine without it."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON for machines.")] = False,
) -> None:
    """Write what a plan yields: images, labels, masks and boxes; again with the same --out does only the rest.

    Bad images are left out and listed in quarantine.jsonl; read = written + replaced.

    Example: lightwell materialize plan.yaml --out shards --split train
    """
    from .pipeline.engine.feed import LocalEngine
    from .pipeline.engine.machine import parse_size
    from .pipeline.jobfile import load_plan
    from .pipeline.materialize.job import Materialize
    from .pipeline.plan import build_checked
    from .pipeline.progress import console_for
    from .workers.local import run_batch_job

    asked = {
        "plan": load_plan(plan),
        "format": kind,
        "encoding": encoding,
        "quality": quality,
        "split": split,
        "augment": augment,
        "epochs": epochs,
        "shard_images": shard_images,
    }
    job = build_checked(Materialize, asked, where="materialize", folder=Path())
    engine = LocalEngine(num_threads=threads, memory_bytes=parse_size(memory) if memory else 0)
    found = run_batch_job(job, engine, out, console_for(quiet=quiet or as_json))
    if as_json:
        print_json(found)
    else:
        print(
            f"wrote {found['written']:,} images into {found['shards']:,} shards below {out} "
            f"({found['read']:,} read, {found['replaced']:,} bad and left out, {found['skipped']:,} skipped)"
        )
