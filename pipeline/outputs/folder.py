"""A folder that a run writes its results into, and nothing of anybody else.

An output folder has a manifest (``manifest``) that lists the files which runs have written there. A run *claims* a name
before it writes the file: the name is put on the list first, so that a run that is killed leaves no file which is not
listed. From this follows

* a missing or empty folder is taken, one with a manifest of the same kind of job is taken up;
* files that are not on the list are never written over or deleted. Where a run would write a file that is there and not
  on the list, it is refused before it reads anything. Other files may lie there, and stay;
* what an earlier result has on the list and the new one does not is deleted by ``complete``;

One run at a time writes to a folder: it holds a lock (``lock``) until it ends.

A job needs to know none of this. It declares the files that it writes as ``outputs`` (names or patterns such as
``shard-*.tar``, relative to the folder; a job without the attribute gets a folder of its own, since nobody can tell what
it will overwrite) and, if it writes files part by part, as ``part_files(records, part)``; the runner claims them. See
``pipeline/jobs/contracts.py``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Self

from ..atomic_io import TEMPORARY, remove_stale
from ..errors import OutputError, RequestError
from .lock import exclusive_lock
from .manifest import LOCK_NAME, Manifest, check_name

HINT = "choose another --out, or move it away"
_PRIVATE_PREFIXES = (".lightwell.", ".seen-")
"""Beginnings of names that a run itself keeps in the folder while it lasts."""


class OutputFolder:
    """The files of one kind of job below a folder; made by ``open``. Not for several threads at a time.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path, manifest: Manifest, *, remote_names: Collection[str] = ()) -> None:
        self.path = path
        self._manifest = manifest
        self._remote_names = frozenset(remote_names)
        self._files = dict(manifest.files)
        self._claimed: set[str] = set()

    @classmethod
    @contextmanager
    def open(
        cls,
        path: Path,
        *,
        kind: str,
        outputs: Sequence[str] | None,
        lock: bool = True,
        remote_names: Collection[str] = (),
        check: Callable[[Self], None] = lambda folder: None,  # noqa: ARG005
    ) -> Iterator[Self]:
        """Open a folder for writing; nothing in it is changed until ``claim``.

        Args:
            path: the folder; made where it is missing.
            kind: of the job; results of another kind are not written over.
            outputs: names and patterns of what will be written; None where that is not known.
            lock: False where the caller has the folder locked already.
            remote_names: names that are taken without a local file, such as those below a URI that were not fetched.
            check: called once the folder is locked; raises where the run may not write there.

        Raises:
            RequestError: the folder holds other things where the run would write, or another run writes there.
            OutputError: it cannot be made or written.
        """
        check_writable(path)
        with ExitStack() as stack:
            if lock:
                stack.enter_context(exclusive_lock(path / LOCK_NAME, what=f"--out {str(path)!r}"))
            found = Manifest.load(path)
            if found is None:
                found = Manifest(kind=kind)
            elif found.kind != kind:
                raise RequestError(
                    f"--out: expected a folder of {kind}, got {str(path)!r} with results of {found.kind[:100]!r}; choose "
                    "another --out"
                )
            folder = cls(path, found, remote_names=remote_names)
            check(folder)
            folder._check(outputs)
            remove_stale(path)
            yield folder

    @property
    def owned(self) -> frozenset[str]:
        """Names on the list, whether the files are there or not."""
        return frozenset(self._files)

    def describe(self, fingerprint: str | None) -> None:
        """Set the fingerprint of the job, which the manifest shows from the next claim on."""
        self._manifest = self._manifest.model_copy(update={"fingerprint": fingerprint})

    def claim(self, *names: str) -> None:
        """Put names on the list, before the files are written.

        Raises:
            RequestError: such a file is there and not on the list, or something that is no file has its name.
            OutputError: the list cannot be written.
        """
        for name in names:
            check_name(name)
            self._check_name(name)
        new = [name for name in names if self._files.get(name, 0) is not None]
        self._claimed.update(names)
        if new:
            self._files.update(dict.fromkeys(new))
            self._save()

    def remove(self, *names: str) -> list[str]:
        """Delete files that are on the list, and take them off it; returns those that are gone.

        A file whose size is not the one on the list was changed by somebody since: it stays, and is no longer listed.
        """
        removed = []
        for name in names:
            if name not in self._files:
                continue
            size = self._files.pop(name)
            self._claimed.discard(name)
            path = self.path / name
            if self._has_linked_parent(name) or path.is_symlink() or not path.is_file():
                continue
            if size is None or path.stat().st_size == size:
                path.unlink()
                removed.append(name)
        if names:
            self._save()
        return removed

    def complete(self) -> list[str]:
        """End a run: delete what only earlier results have on the list, and note the sizes of the rest.

        Returns:
            Names of the deleted files.
        """
        removed = self.remove(*sorted(self._files.keys() - self._claimed))
        paths = {name: self.path / name for name in sorted(self._files)}
        self._files = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
        self._save()
        return removed

    def _save(self) -> None:
        files = dict(sorted(self._files.items()))
        self._manifest = self._manifest.model_copy(update={"files": files})
        self._manifest.save(self.path)

    def _check(self, outputs: Sequence[str] | None) -> None:
        """Refuse a folder in which files that are not ours would be written over."""
        if outputs is None:
            foreign = [name for name in self._list_names("") if not _is_private(name)]
            if not self._files and (foreign := [*foreign, *sorted(self._remote_names)]):
                raise RequestError(
                    f"--out: expected an empty folder, as this job does not declare which files it writes (`outputs`), "
                    f"got {str(self.path)!r} with {foreign[0]!r}; choose a new folder"
                )
            return
        for name in self.matching(outputs):
            self._check_name(name)
        for name in sorted(self._remote_names):
            if name not in self._files and matches(name, outputs):
                self._refuse(name)
        for name in outputs:
            if not is_pattern(name):
                self._check_name(name)

    def matching(self, outputs: Sequence[str]) -> list[str]:
        """List what is in the folder under the names and patterns, ours or not."""
        parents = sorted({str(PurePosixPath(pattern).parent) for pattern in outputs})
        names = [name for parent in parents for name in self._list_names("" if parent == "." else parent)]
        return [name for name in names if matches(name, outputs)]

    def _list_names(self, parent: str) -> list[str]:
        try:
            names = sorted(path.name for path in (self.path / parent).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [f"{parent}/{name}" if parent else name for name in names]

    def _check_name(self, name: str) -> None:
        path = self.path / name
        if self._has_linked_parent(name):
            raise RequestError(
                f"--out: expected a folder to write {name!r} into, got a symbolic link or a file in its place in "
                f"{str(self.path)!r}; {HINT}"
            )
        listed = name in self._files
        if name in self._remote_names and not listed:
            self._refuse(name)
        if os.path.lexists(path) and (not listed or path.is_symlink() or not path.is_file()):
            self._refuse(name)

    def _has_linked_parent(self, name: str) -> bool:
        """Say whether a folder on the way to a file is a link, or no folder."""
        parents = [self.path / parent for parent in Path(name).parents if parent != Path()]
        return any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents)

    def _refuse(self, name: str) -> None:
        raise RequestError(
            f"--out: expected a folder where {name!r} can be written, got {str(self.path)!r} with a {name!r} that no run of "
            f"{self._manifest.kind} wrote there; {HINT}"
        )


def check_writable(path: Path) -> None:
    """Make an output folder and write into it for a moment.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"--out: expected a folder that can be written, got {str(path)!r} ({error.strerror or error}); "
            "choose another, or give yourself the right to write there"
        ) from error


def _is_private(name: str) -> bool:
    return name.startswith(_PRIVATE_PREFIXES) or TEMPORARY.fullmatch(name) is not None


def is_pattern(name: str) -> bool:
    """Say whether a declared output is a pattern of names."""
    return bool(set(name) & set("*?["))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a name is one of some names and patterns; ``*`` does not match ``/``."""
    return any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns)
