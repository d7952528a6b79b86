"""Where results are kept: a folder, or below a URI that fsspec reaches, by way of a folder of this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..pipeline.errors import OutputError, PlanError

LAST = "checkpoint.safetensors"
"""Copied behind all others: it says what they are the results of."""


@dataclass(frozen=True)
class Place:
    """A folder to write to, and what brings it where it is kept."""

    folder: Path
    kept_at: str
    publish: Callable[[], None]


def is_remote(out: str) -> bool:
    """Say whether results are kept below a URI."""
    return "://" in out


def address_of(out: str) -> str:
    """Write down where results are kept so that it means the same in every process."""
    return out.rstrip("/") if is_remote(out) else str(Path(out).absolute())


@contextmanager
def opened(out: str, *, writes: bool = True) -> Iterator[Place]:
    """Open where results are kept, with what an earlier run left there.

    Below a URI files are copied one by one, aside and renamed, those that changed since the last time.

    Args:
        out: a folder, or a URI such as ``s3://bucket/run``.
        writes: False for who only reads, such as all ranks but the first.

    Raises:
        PlanError: no file system for such a URI is installed.
        OutputError: it cannot be read or written.
    """
    if not is_remote(out):
        yield Place(Path(out), out, _keep)
        return
    with tempfile.TemporaryDirectory(prefix="lightwell-") as scratch:
        mirror = Mirror(out, Path(scratch))
        mirror.fetch()
        yield Place(Path(scratch), out, mirror.publish if writes else _keep)


def _keep() -> None:
    """What is in a folder is where it is kept."""


class Mirror:
    """Copies the files of a folder below a URI."""

    def __init__(self, uri: str, folder: Path) -> None:
        import fsspec

        try:
            filesystem, root = fsspec.core.url_to_fs(uri, skip_instance_cache=True, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise PlanError(
                f"--out: wanted a folder or a URI that fsspec knows, got {uri!r} ({error}); install its package, or "
                "choose a folder"
            ) from error
        self._filesystem: Any = filesystem
        self._root = PurePosixPath(root)
        self._uri = uri
        self._folder = folder
        self._copied: dict[str, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Copy what is there into the folder."""
        try:
            for found in self._listed():
                name = PurePosixPath(found["name"]).name
                if found["type"] == "file" and not name.startswith("."):
                    self._filesystem.get_file(found["name"], str(self._folder / name))
        except Exception as error:  # each file system has errors of its own
            raise OutputError(
                f"--out: {self._uri} cannot be read ({error}); check its name and your rights"
            ) from error
        self._copied = self._stamps()

    def publish(self) -> None:
        """Copy what changed."""
        stamps = self._stamps()
        changed = [name for name, stamp in stamps.items() if self._copied.get(name) != stamp]
        try:
            for name in sorted(changed, key=lambda name: (name == LAST, name)):
                aside = str(self._root / f".{name}.tmp")
                self._put(self._folder / name, aside)
                self._filesystem.mv(aside, str(self._root / name))
        except Exception as error:  # each file system has errors of its own
            raise OutputError(
                f"--out: {self._uri} cannot be written ({error}); free space, or check its name and your rights"
            ) from error
        self._copied = stamps

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return list(self._filesystem.ls(str(self._root), detail=True))
        except FileNotFoundError:
            return []  # nothing was written there yet

    def _put(self, path: Path, target: str) -> None:
        try:
            self._filesystem.put_file(str(path), target)
        except (
            FileNotFoundError
        ):  # folders are made only where there are any: elsewhere it would make a bucket
            if self._filesystem.protocol not in ("file", ("file", "local")):
                raise
            self._filesystem.makedirs(str(self._root), exist_ok=True)
            self._filesystem.put_file(str(path), target)

    def _stamps(self) -> dict[str, tuple[int, int]]:
        files = [path for path in self._folder.iterdir() if path.is_file() and not path.name.startswith(".")]
        return {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}
