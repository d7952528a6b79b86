"""Finds the local files that a job file or a plan declares, and checks whether they may be uploaded.

Only declared path fields count (see ``pipeline.config.path_fields``): no file is uploaded because some text matches its
name. A declared file may be uploaded if it is below the folder of the command's document, links resolved, and its name is
not typical of keys and credentials. Other files have to be allowed with ``--ship``.
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
from ...pipeline.jobs.find_job import find_job
from ...pipeline.plan.plan import Plan

COMPANION_FILES = {".safetensors": ("metrics.jsonl",)}
"""Optional files that jobs read beside a declared file, by its suffix."""
PRIVATE_PATTERNS = (
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
"""Name patterns of key files; hidden files and folders are private as well."""


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that a command reads."""

    path: Path
    default_job: str | None
    """Default for its ``job`` key; None for a plan."""
    allow_import: tuple[str, ...] = ()
    """Modules that it may import from, locally and on the cluster."""
    is_sweep: bool = False
    """Whether it is a sweep file; files that its values name have to exist on the cluster."""


@dataclass(frozen=True)
class AllowedFiles:
    """Rules for the files that may be uploaded.

    Args:
        folder: folder of the command's document.
        extra: files and folders allowed by name.
    """

    folder: Path
    extra: Sequence[Path] = ()

    def check(self, path: Path, where: str) -> None:
        """Check that a declared file may be uploaded, links resolved.

        Args:
            path: the file.
            where: document and key, for the error message.

        Raises:
            PlanError: it may not be uploaded.
        """
        real = path.resolve()
        if any(real == one or one in real.parents for one in (extra.resolve() for extra in self.extra)):
            return
        home = self.folder.resolve()
        cure = (
            f"copy it there, use an absolute path on the cluster, or allow it with --ship {path.as_posix()}"
        )
        if home not in real.parents:
            led = f", a link to {str(real)!r}" if path.is_symlink() else ""
            raise PlanError(
                f"{where}: expected a file below {str(self.folder)!r}, the job's folder, got {str(path)!r}{led}; {cure}"
            )
        if is_private(real.relative_to(home)):
            raise PlanError(
                f"{where}: expected a file that is not hidden or named like a key, got {str(path)!r}; {cure}"
            )


def is_private(path: Path) -> bool:
    """Return whether a relative path is hidden or matches a name pattern of key files."""
    hidden = any(part.startswith(".") and part not in (os.curdir, os.pardir) for part in path.parts)
    return hidden or any(fnmatch.fnmatch(path.name.lower(), pattern) for pattern in PRIVATE_PATTERNS)


def declared_files(document: Document, allowed: AllowedFiles) -> dict[Path, None]:
    """Return a document and all files that it and its plan declare by relative paths, in reading order.

    Absolute paths and URIs are on the cluster and not uploaded.

    Raises:
        PlanError: a document is invalid, or a declared file is missing or may not be uploaded.
    """
    result: dict[Path, None] = {document.path: None}
    for reading, model, content in _documents(document, allowed, result):
        for name, text in list_paths(model, content):
            path = _local_path(reading, name, text)
            if path is None:
                continue
            allowed.check(path, f"{reading}: {name}")
            result[path] = None
            for beside in (path.with_name(other) for other in COMPANION_FILES.get(path.suffix, ())):
                if beside.is_file():
                    allowed.check(beside, f"{reading}: {name}")
                    result[beside] = None
    return result


def _documents(
    document: Document, allowed: AllowedFiles, result: dict[Path, None]
) -> Iterator[tuple[Path, type[Any], Mapping[str, Any]]]:
    """Yield each document with its model: the job, then its plan, from its own file or inline; a sweep has none."""
    if document.is_sweep:
        return
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
    elif isinstance(plan, str) and (path := _local_path(document.path, "plan", plan)) is not None:
        allowed.check(path, f"{document.path}: plan")
        result[path] = None
        yield path, Plan, read_yaml(path)


def _local_path(document: Path, name: str, text: str) -> Path | None:
    """Return the local file of a relative path in a document; None for a path on the cluster.

    Raises:
        PlanError: there is no such file; folders are never uploaded.
    """
    if "://" in text or Path(text).expanduser().is_absolute():
        return None
    path = Path(os.path.normpath(document.parent / text))
    if path.is_file():
        return path
    got = f"the folder {str(path)!r}" if path.is_dir() else f"{str(path)!r}, which is not a local file"
    raise PlanError(
        f"{document}: {name}: expected a file to upload, or a path on the cluster, got {got}; use an absolute path that "
        "every node can access"
    )
