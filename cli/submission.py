"""Submit commands to a Ray cluster from Python, as ``lightwell submit`` does.

job = lightwell.submit(["audit", "audit.yaml", "--out", "/shared/audit"], "http://127.0.0.1:8265")
state = job.follow(lambda text: print(text, end=""))
state.exit_code                 # 0 success, 1 failed or stopped, 2 invalid request, 3 a --fail-on gate failed
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..workers.submission.job import SubmittedJob


def submit(
    argv: Sequence[str],
    address: str,
    *,
    max_bytes: int | None = None,
    modules: Sequence[Path] = (),
    ship: Sequence[Path] = (),
    python: str = "python",
    log: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> SubmittedJob:
    """Submit a command to a cluster, with the files it names and the code of this package.

    Args:
        argv: the arguments after ``lightwell``; paths are relative to the current folder.
        address: the job server of the cluster, ``http://HOST:8265``.
        max_bytes: size limit of the uploaded files (default: 100 MB).
        modules: your own packages (folders) or modules that the command needs; their code is uploaded.
        ship: additional files and folders to upload: outside the folder of the job file, or data of a module.
        python: name or path, on the nodes, of the Python interpreter with the dependencies.
        log: called with each line of output: the files, before they are uploaded, and requirements of the cluster.

    Raises:
        RequestError: the command is invalid, a path would be different on the cluster, the upload is too large, or the
            address does not respond.
        RunError: the cluster rejected the job.
    """
    import typer

    from ..pipeline.errors import RequestError
    from ..workers.submission.job import submit_command
    from ..workers.submission.working_dir import DEFAULT_MAX_BYTES
    from .app import app
    from .submit import check_command

    usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # UsageError, which typer does not export
    try:
        command = check_command(typer.main.get_command(app), argv)
    except usage_error as error:
        reason = getattr(error, "message", str(error))
        raise RequestError(f"submit: expected a command of lightwell, got {list(argv)}: {reason}") from error
    return submit_command(
        command,
        address,
        max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes,
        modules=modules,
        ship=ship,
        python=python,
        log=log,
    )
