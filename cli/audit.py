"""``lightwell audit``: run a Grad-CAM audit and check --fail-on gates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..pipeline.text import one_line
from .engine import engine_options, open_engine, open_service
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
)
from .output import configure_logging, print_json, print_table

GATE_CROSSED = 3
"""Exit code if a ``--fail-on`` gate fails."""
MAX_PRINTED = 10
"""Findings in the terminal, the most severe first."""


def audit(
    job: Annotated[Path, typer.Argument(help="Job file (YAML); see the README.")],
    out: Out,
    engine: EngineOption = EngineName.local,
    threads: Threads = 0,
    memory: Memory = None,
    address: Address = None,
    workers: Workers = 0,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = None,
    placement: Placement = PlacementName.colocated,
    job_workers: JobWorkers = 1,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with code 3 if there is a finding of this severity or a higher one (high, medium, low), or if this "
            "condition on findings.json holds, such as 'accuracy<0.8'; repeatable."
        ),
    ] = None,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            help="Target class of the maps: predicted, label, second, all or a class name (default: from the job); "
            "repeatable, the report shows the first."
        ),
    ] = None,
    overlays: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Folder below --out for a PNG of each original picture with its map, and the map as .npy (default: none).",
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Also plant marks in images of the split and report the smallest that the audit would have caught (some "
            "minutes).",
        ),
    ] = False,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Audit a classifier with Grad-CAM; write report.html, findings.json and records.parquet.

    Example: lightwell audit audit.yaml --out runs/cells/audit
    Example: lightwell audit audit.yaml --out runs/cells/audit --engine ray --address auto --gpus-per-worker 1
    Example: lightwell audit audit.yaml --out runs/cells/audit --fail-on high --fail-on 'accuracy<0.8'
    """
    from ..models.audits.gradcam.gate import parse_gate

    gates = [parse_gate(text) for text in fail_on or ()]
    options = engine_options(locals())
    configure_logging(quiet=quiet)
    allowed = allow_import or ()
    found = open_service(job, "gradcam", options=options, allow_import=allowed) or open_engine(**options)
    findings = run_audit(
        job,
        out,
        found,
        quiet=quiet or as_json,
        allow_import=allowed,
        explain=explain,
        overlays=overlays,
        calibrate=calibrate,
    )
    if as_json:
        print_json(findings)
    elif not quiet:
        _print_findings(findings)
        _print_place(out)
    failures = [failure for gate in gates if (failure := gate.failure(findings))]
    for failure in failures:
        print(f"--fail-on: {failure}", file=sys.stderr)
    for gate in gates:
        gate.check_measured(findings)
    if failures:
        raise typer.Exit(GATE_CROSSED)


def run_audit(
    job: Path,
    out: Path | str,
    engine: Any,
    *,
    quiet: bool,
    allow_import: Sequence[str] = (),
    explain: Sequence[str] | None = None,
    overlays: str | None = None,
    calibrate: bool = False,
) -> Any:
    """Run the audit job of a job file and return its findings."""
    from ..models.audits.calibration.stages import cost_sentence
    from ..models.audits.gradcam.job import GradCamAudit
    from ..pipeline.errors import PlanError
    from ..pipeline.jobs.job_file import dump_job, load_job
    from ..pipeline.jobs.progress import console_for
    from ..pipeline.jobs.stages import BatchJob
    from ..workers.local import run_batch_job

    found = load_job(job, default="gradcam", allow_import=allow_import, contract=BatchJob)
    given = {
        "explain": tuple(explain) if explain else None,
        "overlays": overlays,
        "calibrate": calibrate or None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if changes:
        if not isinstance(found, GradCamAudit):
            raise PlanError(
                f"--{next(iter(changes))}: expected a gradcam job, got {type(found).__name__}; leave the option out"
            )
        kept = {name: getattr(found, name) for name in found.model_fields_set}
        found = GradCamAudit(**{**kept, **changes})
    text = dump_job(found, job, default="gradcam")
    console = console_for(quiet=quiet)
    if isinstance(found, GradCamAudit) and found.calibrate:
        console.print(cost_sentence())
    return run_batch_job(found, engine, out, console, reads=[job], job_text=text)


def _print_place(out: str) -> None:
    """Print the path of the report, or of the folder if the job writes none."""
    from ..workers.output_store import is_remote, local_path

    folder = out.rstrip("/")
    has_report = is_remote(out) or (local_path(out) / "report.html").is_file()
    print(f"open {folder}/report.html" if has_report else f"wrote the results to {folder}")


def _print_findings(findings: Any) -> None:
    print_table(
        ["finding", "value"],
        [
            [str(k), f"{v:.4g}" if isinstance(v, float) else str(v)]
            for k, v in findings.items()
            if isinstance(v, int | float | str)
        ],
    )
    if limit := findings.get("detection_limit"):
        print(one_line(limit["sentence"]))
    found = findings.get("findings")
    if not isinstance(found, list):  # of another kind of job
        return
    for finding in found[:MAX_PRINTED]:
        print(f"{finding['severity']}: {one_line(finding['sentence'])}")
    if len(found) > MAX_PRINTED:
        print(f"and {len(found) - MAX_PRINTED:,} more findings in findings.json")
