"""``lightwell train``: train a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .engine import engine_options, open_engine, open_service, open_trainer, open_trials
from .options import (
    Address,
    AllowImport,
    CpusPerWorker,
    EngineName,
    EngineOption,
    GpusPerWorker,
    Json,
    Memory,
    Quiet,
    Threads,
    Workers,
)
from .output import configure_logging, print_json


def train(
    job: Annotated[Path, typer.Argument(help="Job file (YAML); see the README.")],
    out: Annotated[
        str,
        typer.Option(
            help="Output folder, or a URI such as s3://bucket/run; must be accessible from all nodes."
        ),
    ],
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    max_failures: Annotated[
        int, typer.Option(min=0, help="On Ray: maximum number of restarts after a worker died.")
    ] = 8,
    find_lr: Annotated[
        bool,
        typer.Option(
            "--find-lr",
            help="Train nothing: try rising learning rates for 100 steps, and write lr_finder.png and lr_finder.json.",
        ),
    ] = False,
    sweep: Annotated[
        Path | None,
        typer.Option(
            help="Sweep file (YAML): train with several values of some keys, and name the best trial; see the README."
        ),
    ] = None,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train a model; rerun with the same --out to resume after an interruption.

    On Ray, training is data-parallel with a constant global batch, so that results match those of a single process.

    Example: lightwell train train.yaml --out runs/cells
    Example: lightwell train train.yaml --out runs/cells-lr --find-lr
    Example: lightwell train train.yaml --sweep sweep.yaml --out runs/cells-sweep --engine ray
    Example: lightwell train train.yaml --out s3://bucket/cells --engine ray --address auto --workers 4 --gpus-per-worker 1
    """
    from ..pipeline.errors import RequestError

    options = engine_options(locals())
    configure_logging(quiet=quiet)
    allowed = allow_import or ()
    if sweep is not None:
        if find_lr:
            raise RequestError("--sweep: expected no --find-lr beside it, got both; remove one of them")
        trials = open_trials(options, max_failures=max_failures)
        result = run_trials(job, sweep, out, trials, quiet=quiet or as_json, allow_import=allowed)
        if as_json:
            print_json(result)
        elif not quiet:
            print(f"wrote {out}; best trial: {out}/{result['best']}")
        return
    service_engine = open_service(job.absolute(), "classify", options=options, allow_import=allowed)
    trainer = open_trainer(options, max_failures=max_failures, service_engine=service_engine)
    if find_lr and engine is not EngineName.local:
        raise RequestError("--find-lr: expected the local engine, got ray; remove --engine")
    result = run_training(job, out, trainer, quiet=quiet or as_json, allow_import=allowed, find_lr=find_lr)
    if as_json:
        print_json(result)
    elif not quiet:
        print(f"wrote {out}")


def run_training(
    job: Path,
    out: str,
    trainer: Any = None,
    *,
    quiet: bool,
    allow_import: Sequence[str] = (),
    find_lr: bool = False,
) -> Any:
    """Run the training job of a job file, or look for its learning rate, in this process unless a trainer is given."""
    from ..pipeline.jobs.contracts import TrainingJob
    from ..pipeline.jobs.job_file import load_job
    from ..pipeline.jobs.progress import console_for
    from ..workers.train.local_trainer import LocalTrainer

    trainer = trainer or LocalTrainer(open_engine())
    found = load_job(job.absolute(), default="classify", allow_import=allow_import, contract=TrainingJob)
    if find_lr:
        from ..models.training.find_lr import FindLearningRate

        found = FindLearningRate.of(found)
    return trainer.run(found, out, console_for(quiet=quiet), reads=[job])


def run_trials(
    job: Path, sweep: Path, out: str, runner: Any, *, quiet: bool, allow_import: Sequence[str] = ()
) -> Any:
    """Run the trials of a sweep over the keys of a job file."""
    from ..pipeline.errors import PlanError
    from ..pipeline.jobs.job_file import load_service
    from ..pipeline.jobs.progress import console_for
    from ..pipeline.jobs.sweep import Sweep, load_trials
    from ..workers.train.sweep import run_sweep

    if load_service(job.absolute()) is not None:
        raise PlanError(
            "feed: expected trials that make their own batches, got a service; remove feed, or --sweep"
        )
    trials = load_trials(Sweep.load(sweep), job.absolute(), default="classify", allow_import=allow_import)
    return run_sweep(trials, runner, out, console_for(quiet=quiet), reads=[job, sweep])
