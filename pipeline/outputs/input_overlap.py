"""Refuses a run that would overwrite its inputs: plan, index, sources, weights or job file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from ..errors import RequestError
from .folder import OutputFolder
from .manifest import LOCK_NAME

if TYPE_CHECKING:
    from ..index.index import Index

Identity = tuple[int, int]
"""Device and inode, equal for all hard links of a file."""


def check_reads(
    folder: OutputFolder,
    outputs: Sequence[str],
    *,
    reads: Iterable[Path | str],
    index_path: Path | str,
    load_index: Callable[[], Index],
    destination: str = "",
) -> None:
    """Check that a run does not overwrite any of its inputs, with links resolved.

    The index, its images and its masks must not be in the output folder at all; other inputs, such as a job file, may be
    there under names that the run does not write.

    Args:
        folder: the output folder.
        outputs: names and patterns of the files that the run writes.
        reads: input files besides the index and the files that it lists.
        index_path: the index file.
        load_index: called only if the folder is not empty.
        destination: the URI of the folder, where it is not local.

    Raises:
        RequestError: an input would be overwritten.
    """
    if {entry.name for entry in folder.path.iterdir()} <= {LOCK_NAME}:
        return
    root = os.path.realpath(folder.path)
    if _is_below(os.path.realpath(index_path), root):
        _refuse_source(folder, str(index_path))
    index = load_index()
    for uri in _in_folder(index.table, root, destination):
        _refuse_source(folder, uri)
    names = sorted({*folder.owned, *folder.matching(outputs)})
    names_by_identity = {
        found: name for name in names if (found := _identity(folder.path / name)) is not None
    }
    if not names_by_identity:
        return
    for path in reads:
        if (found := _identity(path)) in names_by_identity:
            _refuse(folder, str(path), names_by_identity[found])
    uris = {f"{destination.rstrip('/')}/{name}": name for name in names} if "://" in destination else {}
    for uri in _candidates(index.table, names_by_identity.values(), uris):
        name = uris.get(uri) or names_by_identity.get(_identity(uri) or (-1, -1))
        if name is not None:
            _refuse(folder, uri, name)


def iter_input_paths(job: object) -> Iterator[Path | str]:
    """Yield all paths and strings, which may be paths, among the fields of a job, including nested ones."""
    if isinstance(job, BaseModel):
        for name in type(job).model_fields:
            yield from iter_input_paths(getattr(job, name))
    elif is_dataclass(job) and not isinstance(job, type):
        for field in fields(job):
            yield from iter_input_paths(getattr(job, field.name))
    elif isinstance(job, Path | str):
        yield job
    elif isinstance(job, Mapping):
        for value in job.values():
            yield from iter_input_paths(value)
    elif isinstance(job, list | tuple | set | frozenset):
        for value in job:
            yield from iter_input_paths(value)


def _in_folder(table: pa.Table, root: str, destination: str) -> Iterator[str]:
    """Yield the files of an index that are in a folder, or below the URI that it mirrors."""
    remote = f"{destination.rstrip('/')}/" if "://" in destination else ""
    for column in ("uri", "mask"):
        uris = table[column].drop_null().unique()
        if remote:
            yield from uris.filter(pc.starts_with(uris, remote)).to_pylist()
            continue
        local = uris.filter(pc.invert(pc.match_substring(uris, "://")))
        parents = pc.replace_substring_regex(local, "[^/]*$", "")
        for parent in parents.unique().to_pylist():
            if _is_below(os.path.realpath(parent), root):
                yield from local.filter(pc.equal(parents, parent)).to_pylist()


def _is_below(path: str, root: str) -> bool:
    return f"{path}/".startswith(f"{root.rstrip('/')}/")


def _candidates(table: pa.Table, names: Iterable[str], uris: Mapping[str, str]) -> list[str]:
    """Return the files of an index whose base name occurs in the folder."""
    basenames = pa.array(sorted({name.rsplit("/", 1)[-1] for name in (*names, *uris)}), pa.string())
    found: set[str] = set()
    for column in ("uri", "mask"):
        for chunk in table[column].chunks:
            ends = pc.replace_substring_regex(chunk, ".*/", "")
            found.update(chunk.filter(pc.is_in(ends, basenames)).unique().drop_null().to_pylist())
    return sorted(found)


def _identity(path: Path | str) -> Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - also accepts strings that are not paths
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _refuse_source(folder: OutputFolder, path: str) -> None:
    raise RequestError(
        f"--out: expected a folder that the run does not read from, got {str(folder.path)!r}, in which {path!r} lies, which "
        "it reads; choose another --out, such as a new folder beside it"
    )


def _refuse(folder: OutputFolder, path: str, name: str) -> None:
    raise RequestError(
        f"--out: expected a folder that the run does not read from, got {str(folder.path)!r}, where it would write over "
        f"{name!r}, which it reads ({path!r}); choose another --out"
    )
