"""``lightwell submit`` and ``lightwell jobs``: submit commands to a Ray cluster and manage the jobs."""

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
    help="List, follow and stop jobs on a cluster.\n\nExample: lightwell jobs logs ID --follow",
)

DOCUMENTS: Mapping[str, Mapping[str, str | None]] = {
    "job": {"train": "classify", "audit": "gradcam"},
    "plan": {},
    "sweep": {},
}
"""Parameters that name a YAML file, which is uploaded, with the default type of a job file by command."""
SOURCE_DOCUMENTS: Mapping[str, str] = {"inspect": "inspect"}
"""Default type of a job file by command whose ``source`` may be one (YAML), which is uploaded, or data on the cluster."""
CLUSTER_PATHS = frozenset(
    {
        "apply",
        "checkpoint",
        "data",
        "first",
        "folder",
        "onnx",
        "out",
        "output",
        "root",
        "second",
        "source",
        "sources",
    }
)
"""Parameters that are paths on the cluster. Relative ones would be in the job's working directory, which is deleted."""
LOCAL_COMMANDS = {
    "submit": "it submits other commands",
    "jobs": "it connects to a cluster from outside",
    "bench": "it needs a source checkout and an idle machine",
}

Address = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="Job server of the cluster, such as http://127.0.0.1:8265.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="ID", help="Job ID, as printed by `lightwell submit`.")]


def submit(
    context: typer.Context,
    argv: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="Command to run, after `--`.")],
    address: Address,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the job ID and exit without waiting.")
    ] = False,
    module: Annotated[
        list[Path] | None,
        typer.Option(help="Upload this package or module of your own, such as a custom job; repeatable."),
    ] = None,
    ship: Annotated[
        list[Path] | None,
        typer.Option(
            help="Upload this file or folder: outside the folder of the job file, or data of a --module; repeatable."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the files to upload and exit.")] = False,
    max_bytes: Annotated[str, typer.Option(help="Size limit of the upload, such as 100M.")] = "100M",
    python: Annotated[
        str, typer.Option(help="Python interpreter on the nodes with the dependencies.")
    ] = "python",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not print the log of the job.")] = False,
    as_json: Json = False,
) -> None:
    """Run a command on a Ray cluster, with the files it names, and follow its log.

    Uploads this package, the job file or plan and the files below its folder that it references by relative paths: a small index, a
    checkpoint, a policy. The files are listed before they are sent. Data, caches and --out are not uploaded: use absolute
    paths that exist on all nodes, or URIs. Exits with the code of the command. Ctrl-C leaves the job running; see
    `lightwell jobs ls | status | logs | stop`.

    Example: lightwell submit --address http://127.0.0.1:8265 -- audit audit.yaml --out /shared/audit
    """
    from ..pipeline.machine import parse_size
    from ..workers.submission.job import submit_command

    command = check_command(context.find_root().command, argv)
    if dry_run:
        _print_upload(command, modules=module or (), ship=ship or (), max_bytes=max_bytes, as_json=as_json)
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
    submitted = {
        "id": job.id,
        "address": job.server.address,
        "command": job.command,
        "shipped_bytes": job.num_bytes,
        "shipped": job.shipped,
    }
    if detach:
        if as_json:
            print_json(submitted)
        else:
            print(job.id)
            print(_next_commands(job.id, job.server.address), file=sys.stderr)
        return
    print(f"submitted {job.id} to {job.server.address}", file=sys.stderr)
    state = _follow(job.id, job.server, quiet=quiet, to_stderr=as_json)
    if as_json:
        print_json({**submitted, **_state_fields(state)})
    _exit_with(state)


def _print_upload(
    command: Command, *, modules: Sequence[Path], ship: Sequence[Path], max_bytes: str, as_json: bool
) -> None:
    from ..pipeline.machine import parse_size
    from ..workers.submission.working_dir import WorkingDir

    working_dir = WorkingDir.of(
        command.documents, Path.cwd(), max_bytes=parse_size(max_bytes), modules=modules, ship=ship
    )
    if as_json:
        print_json({"shipped": list(map(str, working_dir.files)), "shipped_bytes": working_dir.num_bytes})
        return
    for line in (*working_dir.file_lines(), *working_dir.notes()):
        print(line)


@jobs_app.command("ls")
def list_command(address: Address, as_json: Json = False) -> None:
    """List submitted jobs, oldest first.

    Example: lightwell jobs ls --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    states = JobServer.connect(address).states()
    if as_json:
        print_json([_state_fields(state) for state in states])
    else:
        print_table(
            ["id", "status", "exit code", "started", "seconds", "command"], [_row(state) for state in states]
        )


@jobs_app.command("status")
def status_command(job: Job, address: Address, as_json: Json = False) -> None:
    """Print the status of a job; exits with 0 even if the job failed.

    Example: lightwell jobs status ID --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    state = JobServer.connect(address).state(job)
    if as_json:
        print_json(_state_fields(state))
    else:
        ended = "" if state.exit_code is None else f", exit code {state.exit_code}"
        print(f"{state.id}: {state.status}{ended}; {state.message}")


@jobs_app.command("logs")
def logs_command(
    job: Job,
    address: Address,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Follow the log until the job ends, and exit with its code."),
    ] = False,
) -> None:
    """Print the log of a job.

    Example: lightwell jobs logs ID --follow --address http://127.0.0.1:8265
    """
    from ..pipeline.text import plain_log
    from ..workers.submission.server import JobServer

    server = JobServer.connect(address)
    if follow:
        _exit_with(_follow(job, server, quiet=False, to_stderr=False))
    else:
        print(plain_log(server.logs(job)), end="")


@jobs_app.command("stop")
def stop_command(job: Job, address: Address, as_json: Json = False) -> None:
    """Stop a job; finished work is kept, and the same command resumes it.

    Example: lightwell jobs stop ID --address http://127.0.0.1:8265
    """
    from ..workers.submission.server import JobServer

    stopping = JobServer.connect(address).stop(job)
    if as_json:
        print_json({"id": job, "stopping": stopping})
    else:
        print(f"{job}: {'stopping' if stopping else 'already ended'}")


def check_command(root: Any, argv: Sequence[str]) -> Command:
    """Parse a command line and find the documents it names.

    Args:
        root: the root command.
        argv: the arguments after ``lightwell``.

    Raises:
        RequestError: the command cannot be submitted, or a path is relative.
        UsageError: raised by typer for an unknown command or option, or an invalid value.
    """
    from ..pipeline.errors import RequestError
    from ..workers.submission.declared_files import Document
    from ..workers.submission.job import Command

    context, found, name, rest = root.make_context("lightwell", list(argv)), root, "", list(argv)
    while hasattr(found, "resolve_command"):
        name, found, rest = found.resolve_command(context, rest)
        if context.parent is None and name in LOCAL_COMMANDS:
            raise RequestError(
                f"submit: expected a command for a cluster, got {name}; {LOCAL_COMMANDS[name]}: run `lightwell {name}` locally"
            )
        context = found.make_context(name, list(rest), parent=context)
    allowed = tuple(context.params.get("allow_import") or ())
    documents = []
    for parameter, value in context.params.items():
        if parameter == "source" and name in SOURCE_DOCUMENTS and str(value).endswith((".yaml", ".yml")):
            documents.append(Document(Path(value), SOURCE_DOCUMENTS[name], allowed))
        elif value is not None and parameter in DOCUMENTS:
            default = DOCUMENTS[parameter].get(name)
            documents.append(Document(value, default, allowed, is_sweep=parameter == "sweep"))
        elif value is not None and parameter in CLUSTER_PATHS:
            for path in value if isinstance(value, list | tuple) else (value,):
                _check_cluster_path(parameter, str(path))
    return Command(tuple(argv), tuple(documents))


def _check_cluster_path(parameter: str, path: str) -> None:
    from ..pipeline.errors import RequestError

    if not Path(path).is_absolute() and "://" not in path:
        raise RequestError(
            f"{parameter}: expected an absolute path on all nodes, or a URI, got {path!r}; the working directory of a job is "
            "deleted when it ends"
        )


def _follow(job: str, server: JobServer, *, quiet: bool, to_stderr: bool) -> JobState:
    """Print the log of a job until it ends; on Ctrl-C, leave it running and print how to follow or stop it."""
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
            f"\nstopped following; {job} is still running. {_next_commands(job, server.address)}",
            file=sys.stderr,
        )
        raise typer.Exit(1) from None


def _next_commands(job: str, address: str) -> str:
    return (
        f"Follow: lightwell jobs logs {job} --follow --address {address}\n"
        f"Stop:   lightwell jobs stop {job} --address {address}"
    )


def _exit_with(state: JobState) -> None:
    """Print the final status of a job and exit with its code."""
    code = 1 if state.exit_code is None else state.exit_code
    reason = f"; {state.message}" if code else ""
    print(f"{state.id}: {state.status}, exit code {code}{reason}", file=sys.stderr)
    raise typer.Exit(code)


def _state_fields(state: JobState) -> dict[str, Any]:
    from dataclasses import asdict

    seconds = None if state.ended_s is None or state.started_s is None else state.ended_s - state.started_s
    return {**asdict(state), "seconds": seconds}


def _row(state: JobState) -> list[str]:
    from datetime import datetime

    fields = _state_fields(state)
    started = (
        "" if state.started_s is None else f"{datetime.fromtimestamp(state.started_s):%Y-%m-%d %H:%M:%S}"
    )
    seconds = "" if fields["seconds"] is None else f"{fields['seconds']:,.0f}"
    code = "" if state.exit_code is None else str(state.exit_code)
    return [state.id, state.status, code, started, seconds, state.command]
