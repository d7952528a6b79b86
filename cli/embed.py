"""``lightwell embed``: write features of images as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    Out,
    Placement,
    PlacementName,
    Quiet,
    Threads,
    Workers,
    check_weights,
)
from .output import configure_logging, print_json


def embed(
    plan: Annotated[Path, typer.Argument(help="Plan, or job file (YAML); see the README.")],
    out: Out,
    model: Annotated[
        str | None, typer.Option(help="Network, such as resnet50 or timm:vit_small_patch14_dinov2.lvd142m.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of --model: default, a path, package:NAME or none (default: default)."),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint of `lightwell train`, instead of --model.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to read (default: all).")] = None,
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
    """Write the features of every image to features.parquet; rerun with the same --out to resume.

    Without --model and --checkpoint, the file is a job file with these keys. Bad images are left out and listed.

    Example: lightwell embed plan.yaml --model resnet50 --out runs/features
    Example: lightwell embed embed.yaml --out runs/features --engine ray --address auto
    """
    from ..pipeline.jobs.progress import console_for
    from ..workers.local import run_batch_job

    check_weights(model, weights)
    options = engine_options(locals())
    configure_logging(quiet=quiet)
    job = _job(plan, model, weights, checkpoint, split, tuple(allow_import or ()))
    found = run_batch_job(job, open_engine(**options), out, console_for(quiet=quiet or as_json), reads=[plan])
    if as_json:
        print_json(found)
    elif not quiet:
        print(
            f"wrote {found['images']:,} features of {found['width']:,} values to {out.rstrip('/')}/features.parquet "
            f"({found['read']:,} read, {found['replaced']:,} bad and left out, {found['skipped']:,} skipped)"
        )


def _job(
    path: Path,
    model: str | None,
    weights: str | None,
    checkpoint: Path | None,
    split: str | None,
    allow_import: tuple[str, ...],
) -> Any:
    from ..models.features.embed import Embed
    from ..pipeline.config.checked_model import build_checked
    from ..pipeline.jobs.job_file import load_job, load_plan
    from ..pipeline.jobs.stages import BatchJob

    if model is None and checkpoint is None:
        job: Any = load_job(path, default="embed", allow_import=allow_import, contract=BatchJob)
        return job if split is None else job.model_copy(update={"split": split})
    values = {
        "plan": load_plan(path, allow_import=allow_import),
        "model": None if model is None else {"name": model, "weights": weights or "default"},
        "checkpoint": checkpoint,
        "split": split,
    }
    return build_checked(Embed, values, where="embed", folder=Path())
