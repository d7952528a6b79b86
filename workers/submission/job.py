"""Submits commands and manages the jobs: Python API of `lightwell submit` and `lightwell jobs`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .declared_files import Document
from .log_stream import follow
from .package import copy_package
from .server import JobServer, JobState
from .working_dir import DEFAULT_MAX_BYTES, WorkingDir


@dataclass(frozen=True, slots=True)
class Command:
    """A validated Lightwell command."""

    argv: tuple[str, ...]
    """Arguments after ``lightwell``."""
    documents: tuple[Document, ...]
    """Job file or plan among the arguments."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A command submitted to a cluster."""

    id: str
    server: JobServer
    command: str
    """Shell command that the job server runs."""
    num_bytes: int
    """Size of the uploaded files, without Lightwell itself and modules."""
    shipped: tuple[str, ...] = ()
    """Uploaded files, including those of modules."""

    def state(self) -> JobState:
        """Return the current state."""
        return self.server.state(self.id)

    def stop(self) -> bool:
        """Stop the job; returns False if it had already ended."""
        return self.server.stop(self.id)

    def logs(self) -> str:
        """Return the output so far."""
        return self.server.logs(self.id)

    def follow(self, write: Callable[[str], None] = lambda text: None) -> JobState:  # noqa: ARG005
        """Stream the log until the job ends; returns its final state."""
        return follow(self.id, self.server, write)


def submit_command(
    command: Command,
    address: str,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    modules: Sequence[Path] = (),
    ship: Sequence[Path] = (),
    python: str = "python",
    log: Callable[[str], None] = lambda line: None,  # noqa: ARG005
) -> SubmittedJob:
    """Upload the files of a command with this Lightwell, and start it on the cluster.

    Args:
        command: the command, relative to the current directory.
        address: the cluster's job server, ``http://HOST:8265``.
        max_bytes: limit for the uploaded files.
        modules: your own Python packages (folders) or modules that the job needs.
        ship: further files and folders that may be uploaded; see ``WorkingDir.of``.
        python: Python interpreter with the dependencies on the cluster's nodes.
        log: called with lines on the files to upload, before the upload, and on further requirements.

    Raises:
        PlanError: a file of the command is invalid, or a path would differ on the cluster.
        RequestError: the files are too large, or there is no job server at the address.
        RunError: the cluster rejected the job.
    """
    working_dir = WorkingDir.of(
        command.documents, Path.cwd(), max_bytes=max_bytes, modules=modules, ship=ship
    )
    lines = [*working_dir.file_lines(), *working_dir.notes()]
    entrypoint = working_dir.entrypoint(command.argv, python)
    server = JobServer.connect(address)
    for line in lines:
        log(line)
    with tempfile.TemporaryDirectory(prefix="lightwell-submit-") as scratch:
        folder, package, own = Path(scratch, "files"), Path(scratch, "package"), Path(scratch, "modules")
        package.mkdir()
        working_dir.copy_to(folder)
        packages = []
        for module in working_dir.modules:
            # Ray's client accepts only folders as modules; a single file goes into the working directory.
            is_file = module.path.is_file()
            laid_out = module.copy_to(folder if is_file else own)
            packages += [] if is_file else [laid_out]
        job = server.submit(
            entrypoint,
            working_dir=folder,
            modules=(*copy_package(package), *packages),
            metadata={"lightwell": " ".join(command.argv)},
        )
    shipped = tuple(map(str, working_dir.files)) + tuple(
        str(file) for module in working_dir.modules for file in module.files
    )
    return SubmittedJob(job, server, entrypoint, working_dir.num_bytes, shipped)
