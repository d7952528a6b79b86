"""The command line: joins the parts, holds no logic. Exit codes: 0 done, 1 the run failed, 2 the request was wrong, 3 a gate was crossed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from . import cli_cache, cli_serve, cli_submit
from .cli_engine import (
    Address,
    AllowImport,
    CpusPerWorker,
    EngineName,
    EngineOption,
    GpusPerWorker,
    JobWorkers,
    Memory,
    Placement,
    PlacementName,
    Threads,
    Workers,
    open_engine,
    open_service,
)
from .cli_index import index, print_counts, run_index
from .cli_materialize import materialize
from .cli_tables import keep_quiet, print_json, print_table
from .cli_train import run_training, train

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Carry images down to models, and show what the models looked at.\n\n"
    "Example: lightwell index photos -o index.parquet",
)

app.add_typer(cli_cache.app, name="cache")
app.add_typer(cli_submit.jobs_app, name="jobs")
app.add_typer(cli_serve.services_app, name="services")

AGAIN_S = 0.05
"""Until a Ctrl-C that was thrown away is delivered again."""
GATE_CROSSED = 3
"""Exit code of an audit whose findings cross a ``--fail-on`` gate."""
INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON for machines.")]
Out = Annotated[str, typer.Option("--out", help="Folder for the results, or a URI such as s3://bucket/run.")]
OutFolder = Annotated[str, typer.Option("--out", help="Folder for the results.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"lightwell {version('lightwell')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Take the options that stand before a command."""


app.command()(index)


@app.command()
def explain(
    plan: Annotated[Path, typer.Argument(help="A plan, or a job file with a plan in it.")],
    allow_import: AllowImport = None,
    as_json: Json = False,
) -> None:
    """Show what a plan does to an image, step by step, before anything runs.

    Example: lightwell explain plan.yaml
    """
    from dataclasses import asdict

    from .pipeline.compiler.costs import measure_costs
    from .pipeline.compiler.explain import explain as explain_program
    from .pipeline.compiler.program import Program
    from .pipeline.jobfile import load_plan

    written = load_plan(plan, allow_import=allow_import or ())
    program = Program.compile(written)
    costs = measure_costs(program, written.load_index()) if written.index.is_file() else None
    steps = explain_program(program, costs)
    if as_json:
        print_json([asdict(step) for step in steps])
        return
    header = ["step", "options", "runs in", "draws from", "cost", "note"]
    shares = ["" if step.cost_share is None else f"{step.cost_share:.0%}" for step in steps]
    print_table(
        header,
        [
            [step.name, step.options, step.runs_in, step.draws_from, share, step.note]
            for step, share in zip(steps, shares, strict=True)
        ],
    )
    if costs is None:
        print(
            "cost: not measured; it needs an index that is there, a policy that can be run on its images, and device: cpu"
        )
    if written.resources is not None:
        print(f"on Ray: {written.resources} for each worker")


app.command()(train)


@app.command()
def audit(
    job: Annotated[Path, typer.Argument(help="A job file; see the README.")],
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
            help="Exit with code 3 if a number of findings.json crosses a value: 'accuracy<0.8'; may be repeated."
        ),
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="Class that the maps explain: predicted, label or a class's name.")
    ] = None,
    allow_import: AllowImport = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show where a model looks: report.html, findings.json and records.parquet.

    Example: lightwell audit audit.yaml --out runs/cells/audit
    Example: lightwell audit audit.yaml --out runs/cells/audit --engine ray --address auto --gpus-per-worker 1
    Example: lightwell audit audit.yaml --out runs/cells/audit --fail-on 'accuracy<0.8'
    """
    from .models.audit.gate import Gate

    gates = [Gate.parse(text) for text in fail_on or ()]
    options: dict[str, Any] = {
        "engine": engine,
        "threads": threads,
        "memory": memory,
        "address": address,
        "workers": workers,
        "cpus_per_worker": cpus_per_worker,
        "gpus_per_worker": gpus_per_worker,
        "placement": placement,
        "job_workers": job_workers,
    }
    keep_quiet(quiet=quiet)
    allowed = allow_import or ()
    found = open_service(job, "gradcam", options=options, allow_import=allowed) or open_engine(**options)
    findings = _run_audit(job, out, found, quiet=quiet or as_json, allow_import=allowed, explain=explain)
    if as_json:
        print_json(findings)
    elif not quiet:
        _print_findings(findings)
        print(f"open {out.rstrip('/')}/report.html")
    crossed = [sentence for gate in gates if (sentence := gate.crossed(findings))]
    for sentence in crossed:
        print(f"--fail-on: {sentence}", file=sys.stderr)
    for gate in gates:
        gate.check_measured(findings)
    if crossed:
        raise typer.Exit(GATE_CROSSED)


app.command()(materialize)
app.command()(cli_submit.submit)
app.command()(cli_serve.serve)


@app.command()
def demo(out: OutFolder = "runs/demo", quiet: Quiet = False, as_json: Json = False) -> None:
    """Index, train and audit 2,624 real photos of solar cells; about five minutes on two cores.

    Example: lightwell demo --out runs/demo
    """
    import time

    from .models.demo import CREDIT, closing_words, open_demo_folder, write_demo_jobs, write_demo_table
    from .pipeline.progress import console_for
    from .workers.place import local_folder

    started = time.monotonic()
    console = console_for(quiet=quiet or as_json)
    with open_demo_folder(local_folder(out)) as folder:
        console.say(CREDIT)
        table, root = write_demo_table(folder)
        _, train_file, audit_file = write_demo_jobs(folder)
    output, shares = folder / "index.parquet", "train=0.65,val=0.1,test=0.25"
    console.say(f"$ lightwell index {table} --root {root} -o {output} --split {shares}")
    built = run_index(table, output, shares=shares, quiet=True, root=root)
    if not (quiet or as_json):
        print_counts(built, output)
    console.say(f"$ lightwell train {train_file} --out {folder / 'train'}")
    result = run_training(train_file, str(folder / "train"), quiet=quiet or as_json)
    console.say(f"$ lightwell audit {audit_file} --out {folder / 'audit'}")
    findings = _run_audit(audit_file, folder / "audit", open_engine(), quiet=quiet or as_json)
    seconds = time.monotonic() - started
    if as_json:
        print_json({"seconds": seconds, "train": result, "audit": findings})
    elif not quiet:
        print(closing_words(findings, seconds, folder / "audit" / "report.html"))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine has, whether its decoders agree, and how near and fast each way of making pictures is.

    Example: lightwell doctor
    """
    from .pipeline.doctor import examine

    found = examine()
    if as_json:
        print_json(found)
        return
    rows = [
        ["python", found["python"]],
        ["cores", str(found["cores"])],
        ["GPU", found["gpu"] or "none; DALI decodes on the CPU"],
    ]
    rows += [[name, version] for name, version in found["versions"].items()]
    rows += [[f"decode with {name}", verdict] for name, verdict in found["decoders"].items()]
    rows += [[f"pictures by {name}", _verdict(way)] for name, way in found["ways"].items()]
    print_table(["what", "found"], rows)


def _verdict(way: Any) -> str:
    if "error" in way:
        return f"failed: {way['error']}"
    pace = f"{way['images_per_second']:,.0f} a second"
    return f"{pace}; differ from Albumentations by at most {way['max_levels']} of 255, {way['mean_levels']:.3f} on average"


@app.command()
def bench(
    data: Annotated[Path, typer.Option("--data", help="A folder with photos; nothing is written into it.")],
    name: Annotated[
        str, typer.Argument(help="cold, large, cached, index, memory, accuracy, ray, gradcam, probe or all.")
    ] = "all",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Where to write the figures as JSON.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of each run that are measured.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=5, help="How often every contestant runs.")] = 5,
    only: Annotated[list[str] | None, typer.Option(help="A contestant to run; may be repeated.")] = None,
) -> None:
    """Measure Lightwell beside its peers, in turn, on your own photos; needs a checkout.

    Example: lightwell bench cold --data photos --json cold.json
    """
    from importlib import import_module

    from .pipeline.errors import RequestError

    tests = Path(__file__).resolve().parent / "tests"
    if not (tests / "benchmarks").is_dir():
        raise RequestError(
            "bench: wanted a checkout of Lightwell, got an installed package without its benchmarks; "
            "clone the repository and run `make bench DATA=dir` there"
        )
    sys.path.insert(0, str(tests))
    import_module("benchmarks.command").run(
        name, data, json_file, seconds=seconds, rounds=rounds, only=only or ()
    )


def _run_audit(
    job: Path,
    out: Path | str,
    engine: Any,
    *,
    quiet: bool,
    allow_import: Sequence[str] = (),
    explain: str | None = None,
) -> Any:
    from .models.audit.job import GradCamAudit
    from .pipeline.errors import PlanError
    from .pipeline.jobfile import load_job
    from .pipeline.jobs import BatchJob
    from .pipeline.progress import console_for
    from .workers.local import run_batch_job

    found = load_job(job, default="gradcam", allow_import=allow_import, contract=BatchJob)
    if explain is not None:
        if not isinstance(found, GradCamAudit):
            raise PlanError(
                f"--explain: expected a gradcam job, got {type(found).__name__}; leave the option out"
            )
        found = found.model_copy(update={"explain": explain})
    return run_batch_job(found, engine, out, console_for(quiet=quiet), reads=[job])


def _print_findings(findings: Any) -> None:
    print_table(
        ["finding", "value"],
        [
            [str(k), f"{v:.4g}" if isinstance(v, float) else str(v)]
            for k, v in findings.items()
            if isinstance(v, int | float | str)
        ],
    )


def keep_interrupts() -> None:
    """Deliver a Ctrl-C again that comes where Python throws it away: in a destructor, or while a generator is let go."""
    told = sys.unraisablehook

    def tell(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            # Not at once: it would be raised here, and thrown away as well.
            to_main = threading.main_thread().ident, signal.SIGINT
            threading.Timer(AGAIN_S, signal.pthread_kill, to_main).start()
        else:
            told(unraisable)

    sys.unraisablehook = tell


def main() -> None:
    """Run the command line; every error becomes one line and an exit code."""
    from .pipeline.errors import LightwellError, StuckError

    keep_interrupts()
    try:
        app()
    except StuckError as error:  # its thread would keep this process for ever
        print(f"error: {error}", file=sys.stderr, flush=True)  # its text is printable
        os._exit(error.exit_code)
    except LightwellError as error:
        _fail(f"error: {error}", error.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != INTERRUPTED:
            raise
        _fail("interrupted; what was finished is kept: run the same command again to go on", 1)
    except Exception as error:
        if os.environ.get("LIGHTWELL_DEBUG"):
            raise
        _fail(
            f"error: {type(error).__name__}: {' '.join(str(error).split())}; set LIGHTWELL_DEBUG=1 for the traceback",
            1,
        )


def _fail(line: str, code: int) -> None:
    from .pipeline.text import printable

    print(printable(line), file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
