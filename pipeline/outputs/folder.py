"""Output folder of a run, in which files that no run has written are never overwritten or deleted.

An output folder has a manifest (``manifest``) of the files that runs have written there. A run *claims* a name before it
writes the file: the manifest is updated first, so that a killed run leaves no unlisted files. It follows that

* a missing or empty folder is used as it is, one with a manifest of the same kind of job is reused;
* unlisted files are never overwritten or deleted. A run that would overwrite one is refused before it reads any data;
  other files may be in the folder, and are kept;
* files of an earlier result that the new one does not have are deleted by ``complete``.

A lock (``lock``) admits one run at a time.

Jobs do not handle this themselves. A job declares the files that it writes as ``outputs`` (names or patterns such as
``shard-*.tar``, relative to the folder; a job without the attribute needs an empty folder, since the files that it would
overwrite are unknown) and, if it writes files for each part, as ``part_files(records, part)``; the runner claims them. See
``pipeline/jobs/contracts.py``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
"""Prefixes of the temporary files of a run."""


class OutputFolder:
    """Files of one kind of job below a folder; created by ``open``. Not thread-safe.

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
        """Open and lock a folder for writing; no file is changed until ``claim``.

        Args:
            path: the folder; created if it is missing.
            kind: of the job; results of another kind are not overwritten.
            outputs: names and patterns of the files to be written; None if unknown.
            lock: False if the caller holds the lock.
            remote_names: existing names without a local file, such as those below a URI that were not fetched.
            check: called once the folder is locked; raises if the run must not write there.

        Raises:
            RequestError: the run would overwrite unlisted files, or another run writes to the folder.
            OutputError: the folder cannot be created or written.
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
            folder._remove_stale()
            yield folder

    @property
    def owned(self) -> frozenset[str]:
        """Names in the manifest, whether or not the files exist."""
        return frozenset(self._files)

    @property
    def stages(self) -> Mapping[str, str]:
        """Keys of the stages of the last run, by name; see ``describe``."""
        return self._manifest.stages

    def describe(self, fingerprint: str | None = None, stages: Mapping[str, str] | None = None) -> None:
        """Set the facts of the run; they are saved at the next claim.

        Args:
            fingerprint: of everything that determines the files.
            stages: keys of a batch job's stages, ``NAME-FINGERPRINT`` by name.
        """
        self._manifest = self._manifest.model_copy(
            update={"fingerprint": fingerprint, "stages": dict(stages or {})}
        )

    def claim(self, *names: str) -> None:
        """Add names to the manifest, before the files are written.

        Raises:
            RequestError: an unlisted file of this name exists, or something else than a file.
            OutputError: the manifest cannot be written.
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
        """Delete listed files and remove them from the manifest; return the names of deleted files.

        A file whose size differs from the manifest was changed since: it is kept, and no longer listed.
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

    def complete(self, keep: Sequence[str] = ()) -> list[str]:
        """End a run: delete files of earlier results that were not claimed, and save the sizes of the others.

        Args:
            keep: names and patterns of files that stay all the same.

        Returns:
            Names of the deleted files.
        """
        stale = sorted(self._files.keys() - self._claimed)
        removed = self.remove(*(name for name in stale if not matches(name, keep)))
        paths = {name: self.path / name for name in sorted(self._files)}
        self._files = {name: path.stat().st_size for name, path in paths.items() if path.is_file()}
        self._save()
        return removed

    def _remove_stale(self) -> None:
        """Delete temporary files that killed runs left beside listed files."""
        for parent in sorted({Path(), *(Path(name).parent for name in self._files)}):
            if not self._has_linked_parent(str(parent / LOCK_NAME)):
                remove_stale(self.path / parent)

    def _save(self) -> None:
        files = dict(sorted(self._files.items()))
        self._manifest = self._manifest.model_copy(update={"files": files})
        self._manifest.save(self.path)

    def _check(self, outputs: Sequence[str] | None) -> None:
        """Raise if unlisted files would be overwritten."""
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
        """List the files in the folder that match the names and patterns, listed or not."""
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
        """Return whether a parent folder of a file is a link, or not a folder."""
        parents = [self.path / parent for parent in Path(name).parents if parent != Path()]
        return any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents)

    def _refuse(self, name: str) -> None:
        raise RequestError(
            f"--out: expected a folder where {name!r} can be written, got {str(self.path)!r} with a {name!r} that no run of "
            f"{self._manifest.kind} wrote there; {HINT}"
        )


def check_writable(path: Path) -> None:
    """Create an output folder and check that it is writable.

    Raises:
            OutputError: the folder cannot be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(
            f"--out: expected a folder that can be written, got {str(path)!r} ({error.strerror or error}); "
            "choose another, or change its permissions"
        ) from error


def _is_private(name: str) -> bool:
    return name.startswith(_PRIVATE_PREFIXES) or TEMPORARY.fullmatch(name) is not None


def is_pattern(name: str) -> bool:
    """Return whether a declared output is a pattern."""
    return bool(set(name) & set("*?["))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name matches any name or pattern; ``*`` does not match ``/``."""
    return any(name.count("/") == pattern.count("/") and fnmatchcase(name, pattern) for pattern in patterns)
