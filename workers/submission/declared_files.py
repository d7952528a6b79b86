"""Which files of this machine a job file or a plan declares, and which of them may go along.

Only declared path fields count (see ``pipeline.path_fields``): a file is never shipped since some text happens to be its
name. A declared file goes along where it lies below the folder of the document that the command names, links resolved, and
has no name that keys and credentials have. Anything else has to be allowed by name, with ``--ship``.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.config.path_fields import list_paths
from ...pipeline.config.safe_yaml import read_yaml
from ...pipeline.errors import PlanError
from ...pipeline.jobs.contracts import find_job
from ...pipeline.plan.plan import Plan

BESIDE = {".safetensors": ("metrics.jsonl",)}
"""What jobs read beside a declared file, where it is there."""
PRIVATE = (
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "id_rsa*",
    "id_ed25519*",
    "id_ecdsa*",
    "id_dsa*",
)
"""Names of files that hold keys; hidden files and folders are private as well."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that a command names."""

    path: Path
    default_job: str | None
    """The job it describes where it names none; None for a plan."""
    allow_import: tuple[str, ...] = ()
    """Modules that it may import from, here and on the cluster."""


@dataclass(frozen=True)
class AllowedFiles:
    """What may leave this machine.

    Args:
        folder: of the document that the command names.
        besides: files and folders that were allowed by name.
    """

    folder: Path
    besides: Sequence[Path] = ()

    def check(self, path: Path, where: str) -> None:
        """Check a declared file, links resolved.

        Args:
            path: the file.
            where: document and key, for the error.

        Raises:
            PlanError: it may not go along.
        """
        real = path.resolve()
        if any(real == one or one in real.parents for one in (besides.resolve() for besides in self.besides)):
            return
        home = self.folder.resolve()
        cure = f"copy it there, write an absolute path that every node sees, or allow it with --ship {path.as_posix()}"
        if home not in real.parents:
            led = f", a link to {str(real)!r}" if path.is_symlink() else ""
            raise PlanError(
                f"{where}: expected a file below {str(self.folder)!r}, the job's folder, got {str(path)!r}{led}; {cure}"
            )
        if is_private(real.relative_to(home)):
            raise PlanError(
                f"{where}: expected a file without the name of a key or a hidden file, got {str(path)!r}; {cure}"
            )


def is_private(path: Path) -> bool:
    """Say whether a relative path is hidden, or named as files are that hold keys."""
    hidden = any(part.startswith(".") and part not in (os.curdir, os.pardir) for part in path.parts)
    return hidden or any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in PRIVATE)


def declared_files(document: Document, allowed: AllowedFiles) -> dict[Path, None]:
    """List a document, what it declares by relative paths, and what its plan declares; in the order of reading.

    Absolute paths and URIs mean the same on the cluster, so that nothing goes along for them.

    Raises:
        PlanError: a document is wrong, or a declared file is missing here or may not go along.
    """
    found: dict[Path, None] = {document.path: None}
    for reading, model, content in _documents(document, allowed, found):
        for name, text in list_paths(model, content):
            path = _here(reading, name, text)
            if path is None:
                continue
            allowed.check(path, f"{reading}: {name}")
            found[path] = None
            for beside in (path.with_name(other) for other in BESIDE.get(path.suffix, ())):
                if beside.is_file():
                    allowed.check(beside, f"{reading}: {name}")
                    found[beside] = None
    return found


def _documents(
    document: Document, allowed: AllowedFiles, found: dict[Path, None]
) -> Iterator[tuple[Path, type[Any], Mapping[str, Any]]]:
    """Yield each document with the model that it is for: the job, then its plan, from a file of its own or inline."""
    content = read_yaml(document.path)
    if document.default_job is None and "plan" not in content:
        yield document.path, Plan, content
        return
    name = str(content.get("job", document.default_job or "classify"))
    job = find_job(name, allow_import=document.allow_import)
    plan = content.pop("plan", None)
    yield document.path, job, content
    if isinstance(plan, Mapping):
        yield document.path, Plan, plan
    elif isinstance(plan, str) and (path := _here(document.path, "plan", plan)) is not None:
        allowed.check(path, f"{document.path}: plan")
        found[path] = None
        yield path, Plan, read_yaml(path)


def _here(document: Path, name: str, text: str) -> Path | None:
    """Find the file that a relative path of a document means; None for what lies on the cluster.

    Raises:
        PlanError: there is no such file: nothing could be shipped, and folders never are.
    """
    if "://" in text or Path(text).expanduser().is_absolute():
        return None
    path = Path(os.path.normpath(document.parent / text))
    if path.is_file():
        return path
    got = f"the folder {str(path)!r}" if path.is_dir() else f"{str(path)!r}, which is no file here"
    raise PlanError(
        f"{document}: {name}: expected a file that can be shipped, or a path on the cluster, got {got}; write an absolute "
        "path that every node sees"
    )
