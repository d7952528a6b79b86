"""``lightwell inspect``: audit a dataset and check --fail-on gates."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .audit import GATE_CROSSED, MAX_PRINTED
from .engine import engine_options, open_engine
from .index import print_counts, run_index
from .options import (
    Address,
    AllowImport,
    CpusPerWorker,
    EngineName,
    EngineOption,
    Json,
    Memory,
    Out,
    Quiet,
    Threads,
    Workers,
    check_weights,
)
from .output import configure_logging, print_json

if TYPE_CHECKING:
    from ..pipeline.plan.plan import Plan


def inspect(
    source: Annotated[
        str,
        typer.Argument(
            help="Whatever `lightwell index` takes, such as a folder with one subfolder per class; an index; or a job file "
            "(YAML) with a plan."
        ),
    ],
    out: Out,
    title: Annotated[str | None, typer.Option(help="Title of the report (default: from the job).")] = None,
    split: Annotated[str | None, typer.Option(help="Split to inspect (default: all).")] = None,
    plan: Annotated[
        Path | None,
        typer.Option(help="Plan (YAML) whose transforms are measured on the images of SOURCE."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Network for checks of features: suspected labels, more near duplicates, more images."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Weights of --model: default, a path or package:NAME.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint of `lightwell train`, instead of --model.")
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="SEVERITY",
            help="Exit with code 3 if there is a finding of this severity or a higher one (high, medium, low).",
        ),
    ] = None,
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Audit a dataset: files, quality, duplicates, leakage, drift; write report.html and fixes.csv.

    Example: lightwell inspect photos --out runs/photos/inspect
    Example: lightwell inspect photos --model resnet50 --out runs/photos/inspect
    Example: lightwell inspect photos --checkpoint runs/photos/best.safetensors --out runs/photos/inspect
    Example: lightwell inspect photos --plan plan.yaml --out runs/photos/inspect
    Example: lightwell inspect index.parquet --out runs/photos/inspect --fail-on high
    """
    from ..models.audits.gradcam.gate import SeverityGate
    from ..pipeline.atomic_io import write_text
    from ..pipeline.errors import RequestError
    from ..pipeline.jobs.job_file import dump_job, load_job
    from ..pipeline.jobs.progress import console_for
    from ..pipeline.jobs.stages import BatchJob
    from ..pipeline.plan.plan import Plan
    from ..pipeline.text import one_line
    from ..workers.local import run_batch_job

    check_weights(model, weights)
    gate = None if fail_on is None else SeverityGate.parse(fail_on)
    is_job = source.endswith((".yaml", ".yml"))
    if plan is not None and is_job:
        raise RequestError(
            f"--plan: expected a folder, an index or another source of images with it, got the job file {source!r}; write the "
            "plan there"
        )
    options = engine_options(locals())
    configure_logging(quiet=quiet)
    found = open_engine(**options)
    is_silent = quiet or as_json
    given = {
        "title": title,
        "split": split,
        "model": None if model is None else {"name": model, "weights": weights or "default"},
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lightwell-")))
        path = folder / "inspect.yaml"
        if is_job:
            path = Path(source)
        else:
            given_plan = None if plan is None else Plan.load(plan, allow_import=allow_import or ())
            write_text(path, _job_text(source, given_plan, out, quiet=is_silent))
        job = load_job(
            path, default="inspect", allow_import=allow_import or (), contract=BatchJob, changes=changes
        )
        text = dump_job(job, path, default="inspect")
        reads = [path] if is_job else [] if plan is None else [plan]
        findings = run_batch_job(job, found, out, console_for(quiet=is_silent), reads=reads, job_text=text)
    if as_json:
        print_json(findings)
    elif not quiet:
        for note in (findings["network"] or {"notes": ()})["notes"]:
            print(one_line(note))
        listed = findings["findings"]
        for finding in listed[:MAX_PRINTED]:
            print(f"{finding['severity']}: {one_line(finding['sentence'])}")
        if len(listed) > MAX_PRINTED:
            print(f"and {len(listed) - MAX_PRINTED:,} more findings in findings.json")
        print(f"{findings['num_fixes']:,} proposed changes in fixes.csv; open {out.rstrip('/')}/report.html")
    failure = "" if gate is None else gate.failure(findings)
    if failure:
        print(f"--fail-on: {failure}", file=sys.stderr)
        raise typer.Exit(GATE_CROSSED)


def _job_text(source: str, given: Plan | None, out: str, *, quiet: bool) -> str:
    """Return a job file; its index is the source, or is built beside the output folder.

    Raises:
        RequestError: the output folder is among the images, or remote.
    """
    import yaml

    from ..models.quickstart.folder import check_location
    from ..pipeline.errors import RequestError
    from ..workers.output_store import is_remote, local_path

    index = Path(source).absolute()
    if not _is_index(source):
        if is_remote(out):
            raise RequestError(
                f"--out: expected a local folder for a source without index, got {out!r}; run `lightwell index` first and "
                "inspect its index"
            )
        target = local_path(out).absolute()
        check_location(target, source)
        target.parent.mkdir(parents=True, exist_ok=True)
        index = target.parent / f"{target.name}.index.parquet"
        built = run_index(source, index, shares="train=0.8,val=0.1,test=0.1", quiet=quiet)
        if not quiet:
            print_counts(built, index)
    limits = {"on_error": "replace", "max_bad": None, "max_bad_share": None}
    errors = ({} if given is None else given.errors.model_dump(mode="json")) | limits
    plan = ({} if given is None else given.dump()) | {"index": str(index), "errors": errors}
    return str(yaml.safe_dump({"job": "inspect", "plan": plan}, sort_keys=False))


def _is_index(source: str) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ..pipeline.index.index import CLASSES

    if not source.endswith(".parquet") or not Path(source).is_file():
        return False
    try:
        return CLASSES in (pq.read_schema(source).metadata or {})
    except (pa.ArrowException, OSError):
        return False
