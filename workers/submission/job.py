"""Submits a command and looks after it: what `lightwell submit` and `lightwell jobs` do, for Python."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .declared_files import Document
from .log_stream import follow
from .package import lay_out_package
from .server import JobServer, JobState
from .working_dir import DEFAULT_MAX_BYTES, WorkingDir


@dataclass(frozen=True, slots=True)
class Command:
    """A command line of ours that was checked."""

    argv: tuple[str, ...]
    """As they stand behind ``lightwell``."""
    documents: tuple[Document, ...]
    """The job file or the plan among them."""


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """A command that the cluster has taken."""

    id: str
    server: JobServer
    command: str
    """As the job server runs it."""
    num_bytes: int
    """Of the shipped files, without Lightwell itself and modules."""
    shipped: tuple[str, ...] = ()
    """The shipped files, those of modules too."""

    def state(self) -> JobState:
        """Ask how far it is."""
        return self.server.state(self.id)

    def stop(self) -> bool:
        """Ask it to stop; False where it had ended already."""
        return self.server.stop(self.id)

    def logs(self) -> str:
        """Return all that it has printed."""
        return self.server.logs(self.id)

    def follow(self, write: Callable[[str], None] = lambda text: None) -> JobState:  # noqa: ARG005
        """Wait until it ends, passing its log on piece by piece; returns how it ended."""
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
    """Ship a command with the files that it names and this Lightwell, and start it.

    Args:
        command: what is run, in the current folder.
        address: the cluster's job server, ``http://HOST:8265``.
        max_bytes: of the files that are shipped.
        modules: folders of Python packages, or modules, of yours that the jobs need.
        ship: files and folders that may go along besides; see ``Shipment.of``.
        python: what the cluster's nodes call the interpreter that has the dependencies.
        log: takes lines: what is shipped, before anything is sent, and what the cluster needs besides.

    Raises:
        PlanError: a file of the command is wrong, or a path would mean something else on the cluster.
        RequestError: too much to ship, or nothing answers at the address.
        RunError: the cluster did not take it.
    """
    shipment = WorkingDir.of(command.documents, Path.cwd(), max_bytes=max_bytes, modules=modules, ship=ship)
    lines = [*shipment.listing(), *shipment.notes()]
    entrypoint = shipment.entrypoint(command.argv, python)
    server = JobServer.connect(address)
    for line in lines:
        log(line)
    with tempfile.TemporaryDirectory(prefix="lightwell-submit-") as scratch:
        folder, package, own = Path(scratch, "files"), Path(scratch, "package"), Path(scratch, "modules")
        package.mkdir()
        shipment.lay_out(folder)
        packages = []
        for module in shipment.modules:
            # Ray's client takes only folders as modules; this one is on the path of every worker.
            is_file = module.path.is_file()
            laid_out = module.lay_out(folder if is_file else own)
            packages += [] if is_file else [laid_out]
        job = server.submit(
            entrypoint,
            working_dir=folder,
            modules=(*lay_out_package(package), *packages),
            metadata={"lightwell": " ".join(command.argv)},
        )
    shipped = tuple(map(str, shipment.files)) + tuple(
        str(file) for module in shipment.modules for file in module.files
    )
    return SubmittedJob(job, server, entrypoint, shipment.num_bytes, shipped)
