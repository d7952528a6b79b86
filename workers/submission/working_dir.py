"""Which files of this machine a command needs on the cluster, found out and checked before anything moves."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.filesize import decimal as format_bytes

from ...pipeline.errors import PlanError, RequestError
from ...pipeline.index.index import CLASSES
from ...pipeline.jobs.job_file import load_job, load_plan
from .declared_files import AllowedFiles, Document, declared_files
from .modules import ModuleFiles

DEFAULT_MAX_BYTES = 100_000_000
"""Of shipped files; Ray keeps them in the memory of the head node and takes at most 512 MB."""
NUM_NAMED = 5
"""Files that are left out and named; the others are counted."""


@dataclass(frozen=True, slots=True)
class WorkingDir:
    """Files that go along, laid out on the other side as they lie here.

    The folder they are laid out in is the current one of the command there and of all its workers, so that a relative path
    means the same to each of them.
    """

    root: Path
    """What that folder stands for: the current folder, or the lowest that holds all files."""
    files: Mapping[Path, Path]
    """From where a file goes, relative to ``root``, to where it lies here."""
    documents: Mapping[Path, str]
    """From how a command names a document here to how it does there."""

    modules: tuple[ModuleFiles, ...] = ()

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        here: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        modules: Sequence[Path] = (),
        ship: Sequence[Path] = (),
    ) -> WorkingDir:
        """Check the documents of a command and find all files that they declare.

        Args:
            documents: what the command reads.
            here: the current folder.
            max_bytes: of all files together, modules too.
            modules: folders of Python packages, or modules, that go along by another way.
            ship: files and folders that may go along although they lie outside a document's folder, are hidden or private, or
                are no code of a module.

        Raises:
            PlanError: a document or one of its keys is wrong, or a declared file may not go along.
            RequestError: the files are too large, or what is allowed by name does not exist.
        """
        for path in ship:
            if not path.exists():
                raise RequestError(f"--ship: expected a file or a folder, got {str(path)!r}; check the path")
        found: dict[Path, None] = {}
        for document in documents:
            path = Path(os.path.relpath(document.path, here))
            job = document.default_job
            permitted = document.allow_import
            if job is None:  # whatever is wrong is said here
                load_plan(path, allow_import=permitted)
            else:
                load_job(path, default=job, allow_import=permitted)
            found |= declared_files(Document(path, job, permitted), AllowedFiles(path.parent, ship))
        paths = [_absolute(path, here) for path in found]
        root = here
        if not all(path.is_relative_to(here) for path in paths):
            root = Path(os.path.commonpath([path.parent for path in paths]))
        files = {path.relative_to(root): path for path in paths}
        there = {one.path: os.path.relpath(_absolute(one.path, here), root) for one in documents}
        going = tuple(ModuleFiles.of(path, ship) for path in modules)
        shipment = cls(root, files, there, going)
        shipment._check_size(max_bytes)
        return shipment

    @property
    def num_bytes(self) -> int:
        """Add up what is shipped."""
        return sum(path.stat().st_size for path in self.files.values())

    def lay_out(self, folder: Path) -> None:
        """Copy the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for inside, path in self.files.items():
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def entrypoint(self, words: Sequence[str], python: str = "python") -> str:
        """Write the command for the job server, which gives it to a shell: every word is quoted."""
        told = [self.documents.get(Path(word), word) for word in words]
        return shlex.join([python, "-m", "lightwell.cli", *told])

    def notes(self) -> list[str]:
        """Say what the cluster needs besides: files that a shipped index names by local paths.

        Raises:
            PlanError: an index names them by relative paths.
        """
        told = []
        for path in self.files.values():
            uri = _first_uri(path)
            if uri is None or "://" in uri:
                continue
            if not Path(uri).is_absolute():
                raise PlanError(
                    f"{path.name}: expected absolute paths or URIs of pictures, got {uri!r}; "
                    "index the folder by its absolute path"
                )
            told.append(f"{path.name} names files such as {uri}: every node has to see them there")
        return told

    def listing(self) -> list[str]:
        """List what leaves this machine, a line a file, and count what stays here of the modules."""
        lines = [
            f"ships {path} ({format_bytes(source.stat().st_size)})" for path, source in self.files.items()
        ]
        for module in self.modules:
            lines += [f"ships {file} (module {module.path.name})" for file in module.files]
            if module.left_out:
                names = ", ".join(str(file) for file in module.left_out[:NUM_NAMED])
                more = len(module.left_out) - NUM_NAMED
                names += f" and {more:,} more" if more > 0 else ""
                lines.append(
                    f"leaves out {names}: no code of module {module.path.name}; name data with --ship"
                )
        return lines

    def _check_size(self, max_bytes: int) -> None:
        besides = [file for module in self.modules for file in module.files]
        sizes = {path: path.stat().st_size for path in (*self.files.values(), *besides)}
        if (total := sum(sizes.values())) > max_bytes:
            largest = max(sizes, key=sizes.__getitem__)
            raise RequestError(
                f"submit: expected at most {format_bytes(max_bytes)} to ship, got {format_bytes(total)}, of which "
                f"{str(largest)!r} has {format_bytes(sizes[largest])}; put it where every node sees it and name it by its "
                "absolute path, or raise --max-bytes"
            )


def _absolute(path: Path, here: Path) -> Path:
    return Path(os.path.normpath(here / path))


def _first_uri(path: Path) -> str | None:
    """Read where the first picture of an index lies; None for files that are no index, or an empty one."""
    if path.suffix != ".parquet":
        return None
    try:
        with pq.ParquetFile(path) as file:
            if CLASSES not in (file.schema_arrow.metadata or {}) or not file.metadata.num_rows:
                return None
            return str(next(file.iter_batches(1, columns=["uri"]))["uri"][0].as_py())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise PlanError(f"{path}: expected an index, got something else ({error}); index again") from error
