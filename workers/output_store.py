"""Output store: a local folder, or a temporary folder mirrored to a URI through fsspec."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from ..pipeline.atomic_io import TEMPORARY
from ..pipeline.errors import OutputError, PlanError, RequestError
from ..pipeline.outputs.folder import matches
from ..pipeline.outputs.manifest import LOCK_NAME, MANIFEST_NAME, Manifest, check_name
from ..pipeline.storage.local import without_file_scheme
from ..pipeline.uris import public_uri
from .output_lease import LEASE_NAME, lease

UPLOADED_LAST = "checkpoint.safetensors"
"""Uploaded after all other files: it describes them."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}
"""Protocols of object stores: writes are atomic, and there are no folders."""


@dataclass(frozen=True)
class OutputStore:
    """Open output: a folder to write to, and a function that uploads it."""

    folder: Path
    destination: str
    publish: Callable[[], None]
    remote_names: Collection[str] = ()
    """Names below the URI that were not fetched into the folder."""


def is_remote(out: Path | str) -> bool:
    """Return whether ``out`` is a remote URI."""
    return isinstance(out, str) and "://" in out and not out.startswith("file://")


def local_path(out: Path | str) -> Path:
    """Convert a local ``--out`` to a path; expands ``~`` and accepts ``file://``.

    Raises:
        RequestError: it is not a path.
    """
    if not str(out).strip() or "\0" in str(out):
        raise RequestError(f"--out: expected a path, got {str(out)!r}; name a folder, such as runs/first")
    return Path(without_file_scheme(str(out))).expanduser()


def local_folder(out: str) -> Path:
    """Convert the ``--out`` of a command that needs a local folder to a path.

    Raises:
        RequestError: it is a URI.
    """
    if is_remote(out):
        raise RequestError(f"--out: expected a local folder, got {public_uri(out)!r}; choose a local path")
    return local_path(out)


def absolute_out(out: Path | str) -> str:
    """Return ``out`` as an absolute path or URI, valid in every process.

    Raises:
        PlanError: the protocol of the URI is not installed.
    """
    if isinstance(out, str) and is_remote(out):
        filesystem_of(out)
        return out.rstrip("/")
    return str(local_path(out).absolute())


def check_output_uri(out: Path | str) -> None:
    """Check that the protocol of ``out`` is supported.

    Raises:
        PlanError: the protocol of the URI is not installed.
    """
    if isinstance(out, str) and is_remote(out):
        filesystem_of(out)


def filesystem_of(uri: str, *, option: str = "--out") -> tuple[Any, str]:
    """Open the fsspec file system of a URI; returns it and the path on it.

    Raises:
        PlanError: no file system for the URI is installed.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri, skip_instance_cache=True, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise PlanError(
            f"{option}: expected a path or a URI that fsspec supports, got {public_uri(uri)!r} ({error}); install its "
            "package, or choose a local path"
        ) from error
    return filesystem, root


@contextmanager
def open_output_store(
    out: Path | str, *, writes: bool = True, lock: bool = False, outputs: Sequence[str] | None = None
) -> Iterator[OutputStore]:
    """Open an output store, with the files of an earlier run.

    For a URI, changed files are uploaded one by one; the temporary folder needs space for all results.

    Args:
        out: a folder, or a URI such as ``s3://bucket/run``.
        writes: False for read-only access, such as on all ranks but the first.
        lock: hold a lease on the URI, so that no other run writes there; see ``lease``.
        outputs: names and patterns of the files to fetch from a URI without a manifest; None fetches all.

    Raises:
        PlanError: no file system for the URI is installed.
        OutputError: the store cannot be read or written.
        RequestError: another run writes there.
    """
    if not isinstance(out, str) or not is_remote(out):
        path = local_path(out)
        yield OutputStore(path, str(path), _no_upload)
        return
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lightwell-")))
        mirror = Mirror(out, scratch)
        if lock:
            stack.enter_context(lease(mirror.filesystem, str(mirror.root), out))
        mirror.fetch(outputs)
        if lock:
            mirror.remove_stale()
        yield OutputStore(scratch, out, mirror.publish if writes else _no_upload, mirror.remote_names)


def _no_upload() -> None:
    """Do nothing: local output needs no upload."""


class Mirror:
    """Mirrors a local folder to a URI.

    Attributes:
        filesystem: an fsspec file system.
        root: path of the URI on it.
        remote_names: names below the URI that were not fetched.
    """

    def __init__(self, uri: str, folder: Path, *, option: str = "--out") -> None:
        self.filesystem, root = filesystem_of(uri, option=option)
        self.root = PurePosixPath(root)
        self.remote_names: Collection[str] = ()
        self._uri = f"{option}: {public_uri(uri)}"
        self._folder = folder
        self._copied: dict[str, tuple[int, int]] = {}

    def fetch(self, outputs: Sequence[str] | None = None) -> None:
        """Download the files on the manifest, or without one the files that match ``outputs``.

        Raises:
            OutputError: the URI cannot be read.
            RequestError: the manifest is damaged.
        """
        try:
            there = set(self._names_in(""))
            if MANIFEST_NAME in there:
                self._get(MANIFEST_NAME)
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error
        manifest = Manifest.load(self._folder)
        listed = () if manifest is None else manifest.files
        parents = {str(PurePosixPath(name).parent) for name in (*listed, *(outputs or ()))} - {"."}
        try:
            for parent in sorted(parents):
                there.update(self._names_in(parent))
            there = {name for name in there if not _is_private(name)}
            wanted = {
                name
                for name in there
                if outputs is None or (name in listed if manifest else matches(name, outputs))
            }
            for name in sorted(wanted):
                self._get(name)
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error
        self.remote_names = frozenset(there - wanted)
        self._copied = self._stamps()

    def fetch_files(self, names: Sequence[str]) -> None:
        """Download some files, as far as they exist.

        Raises:
            OutputError: a file cannot be read.
        """
        try:
            for name in sorted(set(self._names_in("")) & set(names)):
                self._get(name)
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error
        self._copied = self._stamps()

    def publish(self) -> None:
        """Upload changed files, the manifest first, and delete uploaded ones that no longer exist locally.

        Raises:
            OutputError: the URI cannot be written.
        """
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._copied.get(name) != stamp]
        try:
            for name in sorted(
                changed, key=lambda name: (name != MANIFEST_NAME, name == UPLOADED_LAST, name)
            ):
                self._put(name)
                self._copied[name] = stamps[name]
            for name in sorted(self._copied.keys() - stamps.keys()):
                if self.filesystem.exists(str(self.root / name)):
                    self.filesystem.rm_file(str(self.root / name))
                del self._copied[name]
        except Exception as error:  # each file system has errors of its own
            raise OutputError(
                f"{self._uri} cannot be written ({_reason(error)}); free space, or check its name and your rights"
            ) from error

    def remove_stale(self) -> None:
        """Delete temporary files of killed runs, on file systems without atomic writes."""
        if self._is_object_store():
            return
        try:
            for name in self._names_in(""):
                if TEMPORARY.fullmatch(name):
                    self.filesystem.rm_file(str(self.root / name))
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error

    def _names_in(self, parent: str) -> list[str]:
        """Return the files of a folder below the URI."""
        try:
            listed = self.filesystem.ls(str(self.root / parent), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []  # nothing has been written yet
        names = []
        for found in listed:
            name = str(PurePosixPath(parent, PurePosixPath(found["name"]).name))
            if found["type"] == "file" and found["name"].rstrip("/") != str(self.root / parent):
                names.append(name)
        return names

    def _get(self, name: str) -> None:
        target = self._folder / (name if name == MANIFEST_NAME else check_name(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.filesystem.get_file(str(self.root / name), str(target))

    def _put(self, name: str) -> None:
        """Upload a file; under a temporary name first if the write is not atomic."""
        path, target = str(self._folder / name), str(self.root / name)
        if self._is_object_store():
            self.filesystem.put_file(path, target)
            return
        parent = PurePosixPath(target).parent
        aside = str(parent / f".{parent.name[:100]}.{uuid4().hex}.tmp")
        self.filesystem.makedirs(str(parent), exist_ok=True)
        self.filesystem.put_file(path, aside)
        self.filesystem.mv(aside, target)

    def _is_object_store(self) -> bool:
        protocol = self.filesystem.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        return bool(names & OBJECT_STORES)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        names = {str(path.relative_to(self._folder)): path for path in self._folder.rglob("*")}
        files = {name: path for name, path in names.items() if not _is_private(name) and path.is_file()}
        if (manifest := self._folder / MANIFEST_NAME).is_file():
            files[MANIFEST_NAME] = manifest
        return {name: (path.stat().st_mtime_ns, path.stat().st_size) for name, path in files.items()}

    def _unreadable(self, error: Exception) -> OutputError:
        return OutputError(f"{self._uri} cannot be read ({_reason(error)}); check its name and your rights")


def _is_private(name: str) -> bool:
    """Return whether a file is the manifest, or a lock or temporary file of a running job."""
    last = name.rsplit("/", 1)[-1]
    return last in (MANIFEST_NAME, LOCK_NAME, LEASE_NAME) or TEMPORARY.fullmatch(last) is not None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
