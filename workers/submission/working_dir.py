"""Collects and checks the local files that a command needs on the cluster, before the upload."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.filesize import decimal as format_bytes

from ...pipeline.errors import PlanError, RequestError
from ...pipeline.index.index import CLASSES
from ...pipeline.jobs.job_file import load_job, load_plan
from ...pipeline.jobs.sweep import Sweep
from ...pipeline.text import first_few
from .declared_files import AllowedFiles, Document, declared_files
from .modules import ModuleFiles

DEFAULT_MAX_BYTES = 100_000_000
"""Limit for uploaded files; Ray keeps them in the memory of the head node and accepts at most 512 MB."""
NUM_NAMED = 5
"""Excluded files that are listed by name; the others are counted."""


@dataclass(frozen=True, slots=True)
class WorkingDir:
    """Working directory of a submitted command: local files, uploaded with the same relative paths.

    It becomes the current directory of the command and of all its workers on the cluster, so that relative paths resolve
    equally for all of them.
    """

    root: Path
    """Local folder that it corresponds to: the current directory, or the lowest common parent of all files."""
    files: Mapping[Path, Path]
    """Path relative to ``root`` -> local path."""
    documents: Mapping[Path, str]
    """Name of a document in the local command -> its name in the submitted one."""
    modules: tuple[ModuleFiles, ...] = ()

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        cwd: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        modules: Sequence[Path] = (),
        ship: Sequence[Path] = (),
    ) -> WorkingDir:
        """Check the documents of a command and collect all files that they declare.

        Args:
            documents: documents that the command reads.
            cwd: the current directory.
            max_bytes: limit for all files, including modules.
            modules: Python packages (folders) or modules that are uploaded separately.
            ship: files and folders that may be uploaded although they are outside a document's folder, hidden, private, or
                not code of a module.

        Raises:
            PlanError: a document or one of its keys is invalid, or a declared file may not be uploaded.
            RequestError: the files are too large, or a path in ``ship`` does not exist.
        """
        for path in ship:
            if not path.exists():
                raise RequestError(f"--ship: expected a file or a folder, got {str(path)!r}; check the path")
        result: dict[Path, None] = {}
        for document in documents:
            path = Path(os.path.relpath(document.path, cwd))
            job = document.default_job
            permitted = document.allow_import
            if document.is_sweep:  # errors in the document are raised here
                Sweep.load(path)
            elif job is None:
                load_plan(path, allow_import=permitted)
            else:
                load_job(path, default=job, allow_import=permitted)
            relative = replace(document, path=path)
            result |= declared_files(relative, AllowedFiles(path.parent, ship))
        paths = [_absolute(path, cwd) for path in result]
        root = cwd
        if not all(path.is_relative_to(cwd) for path in paths):
            root = Path(os.path.commonpath([path.parent for path in paths]))
        files = {path.relative_to(root): path for path in paths}
        there = {one.path: os.path.relpath(_absolute(one.path, cwd), root) for one in documents}
        included = tuple(ModuleFiles.of(path, ship) for path in modules)
        working_dir = cls(root, files, there, included)
        working_dir._check_size(max_bytes)
        return working_dir

    @property
    def num_bytes(self) -> int:
        """Total size of the files, without modules."""
        return sum(path.stat().st_size for path in self.files.values())

    def copy_to(self, folder: Path) -> None:
        """Copy the files into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for inside, path in self.files.items():
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def entrypoint(self, argv: Sequence[str], python: str = "python") -> str:
        """Return the shell command for the job server, with all arguments quoted."""
        arguments = [self.documents.get(Path(word), word) for word in argv]
        return shlex.join([python, "-m", "lightwell.cli", *arguments])

    def notes(self) -> list[str]:
        """Return notes on further requirements: local paths in an uploaded index, which have to exist on the cluster.

        Raises:
            PlanError: an index has relative paths.
        """
        lines = []
        for path in self.files.values():
            uri = _first_uri(path)
            if uri is None or "://" in uri:
                continue
            if not Path(uri).is_absolute():
                raise PlanError(
                    f"{path.name}: expected absolute paths or URIs of images, got {uri!r}; "
                    "index the folder by its absolute path"
                )
            lines.append(f"{path.name} lists files such as {uri}, which have to exist on every node")
        return lines

    def file_lines(self) -> list[str]:
        """List the files to upload, one per line, and the excluded files of modules."""
        lines = [
            f"ships {path} ({format_bytes(source.stat().st_size)})" for path, source in self.files.items()
        ]
        for module in self.modules:
            lines += [f"ships {file} (module {module.path.name})" for file in module.files]
            if module.excluded:
                names = first_few([*map(str, module.excluded)], NUM_NAMED)
                lines.append(f"excludes {names}: not code of module {module.path.name}; add data with --ship")
        return lines

    def _check_size(self, max_bytes: int) -> None:
        extra = [file for module in self.modules for file in module.files]
        sizes = {path: path.stat().st_size for path in (*self.files.values(), *extra)}
        if (total := sum(sizes.values())) > max_bytes:
            largest = max(sizes, key=sizes.__getitem__)
            raise RequestError(
                f"submit: expected at most {format_bytes(max_bytes)} to ship, got {format_bytes(total)}, of which "
                f"{str(largest)!r} has {format_bytes(sizes[largest])}; put it where every node sees it and name it by its "
                "absolute path, or raise --max-bytes"
            )


def _absolute(path: Path, cwd: Path) -> Path:
    return Path(os.path.normpath(cwd / path))


def _first_uri(path: Path) -> str | None:
    """Read the first image URI of an index; None if the file is not an index or is empty."""
    if path.suffix != ".parquet":
        return None
    try:
        with pq.ParquetFile(path) as file:
            if CLASSES not in (file.schema_arrow.metadata or {}) or not file.metadata.num_rows:
                return None
            return str(next(file.iter_batches(1, columns=["uri"]))["uri"][0].as_py())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise PlanError(f"{path}: expected an index, got something else ({error}); index again") from error
