"""Where results are kept: a folder, or below a URI that fsspec reaches, by way of a folder of this process."""

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
from ..pipeline.storage.store import without_file_scheme
from ..pipeline.uris import public_uri
from .lease import LEASE_NAME, lease

UPLOADED_LAST = "checkpoint.safetensors"
"""Copied behind all others: it says what they are the results of."""
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "memory"}
"""Protocols of stores that show an object only when it is whole, and have no folders."""


@dataclass(frozen=True)
class OutputStore:
    """A folder to write to, and what brings it where it is kept."""

    folder: Path
    destination: str
    publish: Callable[[], None]
    remote_names: Collection[str] = ()
    """Names below a URI that are not in the folder."""


def is_remote(out: Path | str) -> bool:
    """Say whether results are kept below a URI."""
    return isinstance(out, str) and "://" in out and not out.startswith("file://")


def local_path(out: Path | str) -> Path:
    """Turn a local ``--out`` into a path: ``~`` and ``file://`` are understood.

    Raises:
        RequestError: there is none in it.
    """
    if not str(out).strip() or "\0" in str(out):
        raise RequestError(f"--out: expected a path, got {str(out)!r}; name a folder, such as runs/first")
    return Path(without_file_scheme(str(out))).expanduser()


def local_folder(out: str) -> Path:
    """Turn the ``--out`` of a command that works in a local folder into a path.

    Raises:
        RequestError: a URI.
    """
    if is_remote(out):
        raise RequestError(
            f"--out: expected a local folder, got {public_uri(out)!r}; choose a path of this machine"
        )
    return local_path(out)


def absolute_out(out: Path | str) -> str:
    """Write down where results are kept so that it means the same in every process.

    Raises:
        PlanError: a URI of a protocol that is not installed.
    """
    if isinstance(out, str) and is_remote(out):
        filesystem_of(out)
        return out.rstrip("/")
    return str(local_path(out).absolute())


def check_output_uri(out: Path | str) -> None:
    """Check that results can be kept there, as far as its protocol goes.

    Raises:
        PlanError: a URI of a protocol that is not installed.
    """
    if isinstance(out, str) and is_remote(out):
        filesystem_of(out)


def filesystem_of(uri: str, *, option: str = "--out") -> tuple[Any, str]:
    """Open the file system of a URI; returns it with the path there.

    Raises:
        PlanError: no file system for such a URI is installed.
    """
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(uri, skip_instance_cache=True, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise PlanError(
            f"{option}: expected a path or a URI that fsspec knows, got {public_uri(uri)!r} ({error}); install its "
            "package, or choose a local path"
        ) from error
    return filesystem, root


@contextmanager
def open_output_store(
    out: Path | str, *, writes: bool = True, lock: bool = False, outputs: Sequence[str] | None = None
) -> Iterator[OutputStore]:
    """Open where results are kept, with what an earlier run left there.

    Below a URI files are copied one by one, those that changed since the last time. The folder of this process needs
    room for all results.

    Args:
        out: a folder, or a URI such as ``s3://bucket/run``.
        writes: False for who only reads, such as all ranks but the first.
        lock: hold a lease on the URI, so that no other run writes there; see ``lease``.
        outputs: names and patterns of what is fetched from below a URI where there is no manifest; None fetches all.

    Raises:
        PlanError: no file system for such a URI is installed.
        OutputError: it cannot be read or written.
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
    """Copies the files of a folder below a URI.

    Attributes:
        filesystem: of fsspec.
        root: path of the URI on it.
        elsewhere: names below the URI that were not fetched.
    """

    def __init__(self, uri: str, folder: Path, *, option: str = "--out") -> None:
        self.filesystem, root = filesystem_of(uri, option=option)
        self.root = PurePosixPath(root)
        self.remote_names: Collection[str] = ()
        self._uri = f"{option}: {public_uri(uri)}"
        self._folder = folder
        self._copied: dict[str, tuple[int, int]] = {}

    def fetch(self, outputs: Sequence[str] | None = None) -> None:
        """Copy what is there into the folder: the files on its manifest, or those of some names where it has none.

        Raises:
            OutputError: it cannot be read.
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
        """Copy some files of the folder, those that are there.

        Raises:
            OutputError: one cannot be read.
        """
        try:
            for name in sorted(set(self._names_in("")) & set(names)):
                self._get(name)
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error
        self._copied = self._stamps()

    def publish(self) -> None:
        """Copy what changed, and delete what was copied and is gone; the manifest comes first.

        Raises:
            OutputError: it cannot be written.
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
        """Delete what killed runs were copying there, where a file system needs a temporary name for it."""
        if self._is_object_store():
            return
        try:
            for name in self._names_in(""):
                if TEMPORARY.fullmatch(name):
                    self.filesystem.rm_file(str(self.root / name))
        except Exception as error:  # each file system has errors of its own
            raise self._unreadable(error) from error

    def _names_in(self, parent: str) -> list[str]:
        """List the files of a folder below the URI."""
        try:
            listed = self.filesystem.ls(str(self.root / parent), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []  # nothing was written there yet
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
        """Copy a file, with a temporary name first where others could see a part of it."""
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
    """Say whether a file belongs to a run at work, or is the manifest."""
    last = name.rsplit("/", 1)[-1]
    return last in (MANIFEST_NAME, LOCK_NAME, LEASE_NAME) or TEMPORARY.fullmatch(last) is not None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
