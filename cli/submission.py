"""Commands on a cluster, from Python: what ``lightwell submit`` does in a terminal.

job = lightwell.submit(["audit", "audit.yaml", "--out", "/shared/audit"], "http://127.0.0.1:8265")
state = job.follow(lambda text: print(text, end=""))
state.exit_code                 # 0 done, 1 failed or stopped, 2 the request was wrong, 3 findings crossed a gate
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
    """Ship a command with the files that it names and this Lightwell, and start it on a cluster.

    Args:
        argv: what stands behind ``lightwell`` in a terminal; paths count from the current folder.
        address: the cluster's job server, ``http://HOST:8265``.
        max_bytes: of the files that are shipped; None for 100 MB.
        modules: folders of Python packages, or modules, of yours that the command needs; their code goes along.
        ship: files and folders that may go along although they lie outside the job file's folder, or are data of a module.
        python: what the cluster's nodes call the interpreter that has the dependencies.
        log: takes lines: what is shipped, before anything is sent, and what the cluster needs besides.

    Raises:
        RequestError: the command is wrong or a path would mean something else on the cluster; too much to ship; or nothing
            answers at the address.
        RunError: the cluster did not take it.
    """
    import typer

    from ..pipeline.errors import RequestError
    from ..workers.submission.job import submit_command
    from ..workers.submission.working_dir import DEFAULT_MAX_BYTES
    from .app import app
    from .submit import check_command

    wrong: type[Exception] = typer.BadParameter.__bases__[0]  # typer's UsageError, which has no public name
    try:
        command = check_command(typer.main.get_command(app), argv)
    except wrong as error:
        told = getattr(error, "message", str(error))
        raise RequestError(f"submit: expected a command of lightwell, got {list(argv)}: {told}") from error
    return submit_command(
        command,
        address,
        max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes,
        modules=modules,
        ship=ship,
        python=python,
        log=log,
    )
