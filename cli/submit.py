"""``lightwell submit`` and ``lightwell jobs``: from words to a checked command, and what the cluster says; no logic."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json
from .output import print_json, print_table

if TYPE_CHECKING:
    from ..workers.submission.job import Command
    from ..workers.submission.server import JobServer, JobState

jobs_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="List, follow and stop what was submitted to a cluster.\n\nExample: lightwell jobs logs ID --follow",
)

DOCUMENTS: Mapping[str, Mapping[str, str | None]] = {
    "job": {"train": "classify", "audit": "gradcam"},
    "plan": {},
}
"""Parameters that name a YAML file, which is shipped; what a job file is of where it does not say."""
CLUSTER_PATHS = frozenset({"out", "output", "folder", "source", "root"})
"""Parameters that say where data lies or results go: a relative path would be one of the job's own folder, which goes."""
LOCAL_COMMANDS = {
    "submit": "it is what submits",
    "jobs": "it asks a cluster from outside",
    "bench": "it needs a checkout and a machine for itself",
}

Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's job server, such as http://127.0.0.1:8265.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="ID", help="What `lightwell submit` printed.")]


def submit(
    context: typer.Context,
    argv: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="Behind `--`: any other command of lightwell.")
    ],
    address: Address,
    detach: Annotated[bool, typer.Option("--detach", help="Print the job's id and do not wait.")] = False,
    module: Annotated[
        list[Path] | None,
        typer.Option(help="A package or module of yours that goes along, such as a job; may be repeated."),
    ] = None,
    ship: Annotated[
        list[Path] | None,
        typer.Option(
            help="A file or folder that may go along: outside the job file's folder, or data of a --module; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be shipped; send nothing.")
    ] = False,
    max_bytes: Annotated[str, typer.Option(help="What may be shipped, such as 100M.")] = "100M",
    python: Annotated[
        str, typer.Option(help="What the cluster calls the Python that has the dependencies.")
    ] = "python",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show the job's log.")] = False,
    as_json: Json = False,
) -> None:
    """Run a command on a Ray cluster: ship this Lightwell and the files that the command names, follow it to its end.

    Shipped are the job file or plan and the files below its folder that its keys name by relative paths: a small index, a
    checkpoint, a policy. They are listed before anything is sent. Data, caches and --out stay on the cluster: name them by
    absolute paths that all nodes see, or by URIs. The exit code is the command's. Ctrl-C leaves the job running; `lightwell
    jobs ls | status | logs | stop` look after it.

    Example: lightwell submit --address http://127.0.0.1:8265 -- audit audit.yaml --out /shared/audit
    """
    from ..pipeline.machine import parse_size
    from ..workers.submission.job import submit_command

    command = check_command(context.find_root().command, argv)
    if dry_run:
        _show_shipment(command, modules=module or (), ship=ship or (), max_bytes=max_bytes, as_json=as_json)
        return
    job = submit_command(
        command,
        address,
        max_bytes=parse_size(max_bytes),
        modules=module or (),
        ship=ship or (),
        python=python,
        log=lambda line: print(line, file=sys.stderr),
    )
    told = {
        "id": job.id,
        "address": job.server.address,
        "command": job.command,
        "shipped_bytes": job.num_bytes,
        "shipped": job.shipped,
    }
    if detach:
        if as_json:
            print_json(told)
        else:
            print(job.id)
            print(_how_to_go_on(job.id, job.server.address), file=sys.stderr)
        return
    print(f"submitted {job.id} to {job.server.address}", file=sys.stderr)
    state = _follow(job.id, job.server, quiet=quiet, to_stderr=as_json)
    if as_json:
        print_json({**told, **_facts(state)})
    _end(state)


def _show_shipment(
    command: Command, *, modules: Sequence[Path], ship: Sequence[Path], max_bytes: str, as_json: bool
) -> None:
    from ..pipeline.machine import parse_size
    from ..workers.submission.working_dir import WorkingDir

    shipment = WorkingDir.of(
        command.documents, Path.cwd(), max_bytes=parse_size(max_bytes), modules=modules, ship=ship
    )
    if as_json:
        print_json({"shipped": list(map(str, shipment.files)), "shipped_bytes": shipment.num_bytes})
        return
    for line in (*shipment.listing(), *shipment.notes()):
        print(line)


@jobs_app.command("ls")
def list_command(address: Address, as_json: Json = False) -> None:
    """List what was submitted, oldest first.

    Example: lightwell jobs ls --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    states = JobServer.connect(address).states()
    if as_json:
        print_json([_facts(state) for state in states])
    else:
        print_table(
            ["id", "status", "exit code", "started", "seconds", "command"], [_row(one) for one in states]
        )


@jobs_app.command("status")
def status_command(job: Job, address: Address, as_json: Json = False) -> None:
    """Say how far a job is; exits with 0 whatever it says.

    Example: lightwell jobs status ID --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    state = JobServer.connect(address).state(job)
    if as_json:
        print_json(_facts(state))
    else:
        ended = "" if state.exit_code is None else f", exit code {state.exit_code}"
        print(f"{state.id}: {state.status}{ended}; {state.message}")


@jobs_app.command("logs")
def logs_command(
    job: Job,
    address: Address,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job ends, and exit with its code.")
    ] = False,
) -> None:
    """Print what a job has printed.

    Example: lightwell jobs logs ID --follow --address http://127.0.0.1:8265
    """
    from ..pipeline.text import plain_log
    from ..workers.submission.server import JobServer

    server = JobServer.connect(address)
    if follow:
        _end(_follow(job, server, quiet=False, to_stderr=False))
    else:
        print(plain_log(server.logs(job)), end="")


@jobs_app.command("stop")
def stop_command(job: Job, address: Address, as_json: Json = False) -> None:
    """Ask a job to stop; what it has finished is kept, and the same command goes on from there.

    Example: lightwell jobs stop ID --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    stopping = JobServer.connect(address).stop(job)
    if as_json:
        print_json({"id": job, "stopping": stopping})
    else:
        print(f"{job}: {'stopping' if stopping else 'had ended already'}")


def check_command(root: Any, argv: Sequence[str]) -> Command:
    """Parse a command line as it would be parsed here, and find what it names.

    Args:
        root: the command line's own group of commands.
        argv: what stands behind ``lightwell``.

    Raises:
        RequestError: a command that cannot be submitted, or a path that would mean something else on the cluster.
        UsageError: typer's, where a command, an option or a value is wrong.
    """
    from ..pipeline.errors import RequestError
    from ..workers.submission.declared_files import Document
    from ..workers.submission.job import Command

    context, found, name, rest = root.make_context("lightwell", list(argv)), root, "", list(argv)
    while hasattr(found, "resolve_command"):
        name, found, rest = found.resolve_command(context, rest)
        if context.parent is None and name in LOCAL_COMMANDS:
            raise RequestError(
                f"submit: expected a command for a cluster, got {name}; {LOCAL_COMMANDS[name]}: run `lightwell {name}` by itself"
            )
        context = found.make_context(name, list(rest), parent=context)
    allowed = tuple(context.params.get("allow_import") or ())
    documents = []
    for parameter, value in context.params.items():
        if value is not None and parameter in DOCUMENTS:
            documents.append(Document(value, DOCUMENTS[parameter].get(name), allowed))
        elif value is not None and parameter in CLUSTER_PATHS:
            _check_cluster_path(parameter, str(value))
    return Command(tuple(argv), tuple(documents))


def _check_cluster_path(parameter: str, place: str) -> None:
    from ..pipeline.errors import RequestError

    if not Path(place).is_absolute() and "://" not in place:
        raise RequestError(
            f"{parameter}: expected an absolute path that every node sees, or a URI, got {place!r}; the job's own folder on the "
            "cluster goes when it ends"
        )


def _follow(job: str, server: JobServer, *, quiet: bool, to_stderr: bool) -> JobState:
    """Show a job's log until it ends; Ctrl-C leaves it running and says how to go on."""
    from ..workers.submission.log_stream import follow

    stream = sys.stderr if to_stderr else sys.stdout

    def write(text: str) -> None:
        if not quiet:
            stream.write(text)
            stream.flush()

    try:
        return follow(job, server, write)
    except KeyboardInterrupt:
        print(
            f"\nnot followed any more; {job} goes on. {_how_to_go_on(job, server.address)}", file=sys.stderr
        )
        raise typer.Exit(1) from None


def _how_to_go_on(job: str, address: str) -> str:
    return (
        f"Follow it: lightwell jobs logs {job} --follow --address {address}\n"
        f"Stop it:   lightwell jobs stop {job} --address {address}"
    )


def _end(state: JobState) -> None:
    """Say how a job ended and exit with its code."""
    code = 1 if state.exit_code is None else state.exit_code
    told = f"; {state.message}" if code else ""
    print(f"{state.id}: {state.status}, exit code {code}{told}", file=sys.stderr)
    raise typer.Exit(code)


def _facts(state: JobState) -> dict[str, Any]:
    from dataclasses import asdict

    seconds = None if state.ended_s is None or state.started_s is None else state.ended_s - state.started_s
    return {**asdict(state), "seconds": seconds}


def _row(state: JobState) -> list[str]:
    from datetime import datetime

    facts = _facts(state)
    started = (
        "" if state.started_s is None else f"{datetime.fromtimestamp(state.started_s):%Y-%m-%d %H:%M:%S}"
    )
    seconds = "" if facts["seconds"] is None else f"{facts['seconds']:,.0f}"
    code = "" if state.exit_code is None else str(state.exit_code)
    return [state.id, state.status, code, started, seconds, state.command]
