"""Which files of this machine a command needs on the cluster, found out and checked before anything moves."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from ...pipeline.dataset.index import CLASSES
from ...pipeline.engine.stats import megabytes
from ...pipeline.errors import PlanError, RequestError
from ...pipeline.jobfile import load_job, load_plan
from ...pipeline.safe_yaml import read_yaml

DEFAULT_MAX_BYTES = 100_000_000
"""Of shipped files; Ray keeps them in the memory of the head node and takes at most 512 MB."""
YAML_SUFFIXES = (".yaml", ".yml")
BESIDE = {".safetensors": ("metrics.jsonl",)}
"""What jobs look for beside a file without being told."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that a command names."""

    path: Path
    default_job: str | None
    """The job it describes where it names none; None for a plan."""
    allow_import: tuple[str, ...] = ()
    """Modules that it may import from, here and on the cluster."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """Files that go along, laid out on the other side as they lie here.

    The folder they are laid out in is the current one of the command there and of all its workers, so that a relative path
    means the same to each of them.
    """

    root: Path
    """What that folder stands for: the current folder, or the lowest that holds all documents and their files."""
    files: Mapping[Path, Path]
    """From where a file goes, relative to ``root``, to where it lies here."""
    documents: Mapping[Path, str]
    """From how a command names a document here to how it does there."""

    @classmethod
    def of(
        cls,
        documents: Sequence[Document],
        here: Path,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        modules: Sequence[Path] = (),
    ) -> Shipment:
        """Check the documents of a command and find all files that they name.

        Args:
            documents: what the command reads.
            here: the current folder.
            max_bytes: of all files together, modules too.
            modules: folders of Python packages, or modules, that go along by another way.

        Raises:
            PlanError: a document or one of its keys is wrong, or a path would mean something else on the cluster.
            RequestError: the files are too large.
        """
        named = _Named()
        for document in documents:
            path = Path(os.path.relpath(document.path, here))
            job = document.default_job
            allowed = document.allow_import
            loaded = (
                load_plan(path, allow_import=allowed)
                if job is None
                else load_job(path, default=job, allow_import=allowed)
            )
            _check_paths(loaded, str(path))
            named.read(path)
        found = [_absolute(path, here) for path in named.beside_documents]
        root = here
        if not all(path.is_relative_to(here) for path in found):
            root = Path(os.path.commonpath([path.parent for path in found]))
        files = {path.relative_to(root): path for path in found}
        for path in named.from_here:
            target = Path(os.path.normpath(path))
            if target.parts[0] == os.pardir or files.get(target, here / target) != here / target:
                raise PlanError(
                    f"{path}: wanted a path that means the same on the cluster, got one that counts from the current folder; "
                    "run the command where the job file lies, or write an absolute path that every node sees"
                )
            files[target] = here / target
        there = {one.path: os.path.relpath(_absolute(one.path, here), root) for one in documents}
        shipment = cls(root, files, there)
        shipment._check_size(max_bytes, [file for path in modules for file in _files_of_module(path)])
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
                    f"{path.name}: wanted absolute paths or URIs of pictures, got {uri!r}; "
                    "index the folder by its absolute path"
                )
            told.append(f"{path.name} names files such as {uri}: every node has to see them there")
        return told

    def _check_size(self, max_bytes: int, besides: Sequence[Path]) -> None:
        sizes = {path: path.stat().st_size for path in (*self.files.values(), *besides)}
        if (total := sum(sizes.values())) > max_bytes:
            largest = max(sizes, key=sizes.__getitem__)
            raise RequestError(
                f"submit: wanted at most {megabytes(max_bytes)} to ship, got {megabytes(total)}, of which "
                f"{str(largest)!r} has {megabytes(sizes[largest])}; put it where every node sees it and name it by its "
                "absolute path, or raise --max-bytes"
            )


def _files_of_module(path: Path) -> list[Path]:
    if path.suffix == ".py" and path.is_file():
        return [path]
    if (path / "__init__.py").is_file():
        return [file for file in path.rglob("*") if file.is_file()]
    raise RequestError(
        f"--module: wanted a Python module or the folder of a package, got {str(path)!r}; name a file that ends in .py, or "
        "a folder with an __init__.py"
    )


def _absolute(path: Path, here: Path) -> Path:
    return Path(os.path.normpath(here / path))


def _check_paths(loaded: Any, where: str) -> None:
    """Refuse relative paths that are no files: nothing could be shipped for them, and folders are never shipped."""
    for name, path in _paths_of(loaded):
        if path.is_absolute() or path.is_file() or "://" in str(path):
            continue
        got = f"the folder {str(path)!r}" if path.is_dir() else f"{str(path)!r}, which is no file here"
        raise PlanError(
            f"{where}: {name}: wanted a file that can be shipped, or a path on the cluster, got {got}; "
            "write an absolute path that every node sees"
        )


def _paths_of(value: Any, name: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the dotted names and values of all paths in a job or a plan."""
    if isinstance(value, Path):
        yield name, value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from _paths_of(getattr(value, field), f"{name}.{field}".lstrip("."))
    elif dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            yield from _paths_of(getattr(value, one.name), f"{name}.{one.name}".lstrip("."))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _paths_of(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _paths_of(item, f"{name}[{number}]")


class _Named:
    """The files that documents name by relative paths, and what those name in turn."""

    def __init__(self) -> None:
        self.beside_documents: dict[Path, None] = {}
        """By paths that count from the folder of the document."""
        self.from_here: dict[Path, None] = {}
        """By paths that count from the current folder, as a few plain words of jobs do, such as weights."""

    def read(self, document: Path) -> None:
        """Add a document and what it names."""
        self.beside_documents[document] = None
        waiting = [document]
        while waiting:
            reading = waiting.pop()
            for text in _texts_of(read_yaml(reading)):
                if Path(text).is_absolute() or not Path(text).suffix:
                    continue
                path = reading.parent / text
                if path.is_file():
                    if path.suffix in YAML_SUFFIXES and path not in self.beside_documents:
                        waiting.append(path)
                    beside = (path.with_name(name) for name in BESIDE.get(path.suffix, ()))
                    found = [path, *(other for other in beside if other.is_file())]
                    self.beside_documents.update(dict.fromkeys(found))
                elif Path(text).is_file():
                    self.from_here[Path(text)] = None


def _texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_of(item)


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
        raise PlanError(f"{path}: wanted an index, got something else ({error}); index again") from error
