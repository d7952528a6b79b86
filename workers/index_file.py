"""Opens the file that an index is written to: a path or a URI, one writer at a time, and no file of anybody else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ..pipeline.errors import OutputError, RequestError
from ..pipeline.index.index import CLASSES, Index
from ..pipeline.outputs.lock import exclusive_lock
from .output_store import Mirror, is_remote, local_path

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class IndexFile:
    """The open target of an index."""

    path: Path
    """Where it is written; for a URI, a temporary file of this machine."""
    previous: Index | None
    """What an earlier run has written there."""
    publish: Callable[[], None]
    """Copies it to its URI; called once it is whole."""


@contextmanager
def open_index_file(output: Path | str, *, reads: Iterable[Path | str] = ()) -> Iterator[IndexFile]:
    """Open the file that an index will be written to.

    An interrupted run is taken up only where the file is local: what it had seen lies beside the index.

    Args:
        output: a path or a URI.
        reads: files that the run reads.

    Raises:
        RequestError: there is a file which is no index, the run reads it, or another run writes it.
        OutputError: it cannot be read or written.
    """
    if isinstance(output, str) and is_remote(output):
        parent, _, name = output.rpartition("/")
        if not name or parent.endswith("/"):
            raise RequestError(
                f"-o: expected the URI of a file, got {output!r}; add a name such as index.parquet"
            )
        with tempfile.TemporaryDirectory(prefix="lightwell-") as scratch:
            mirror = Mirror(parent, Path(scratch), option="-o")
            mirror.fetch_files([name])
            path = Path(scratch, name)
            yield IndexFile(path, _previous(path, output), mirror.publish)
        return
    path = local_path(output)
    for read in reads:
        if _is_same(path, read):
            raise RequestError(
                f"-o: expected a file that the run does not read, got {str(path)!r}, its source; choose another -o"
            )
    _check_is_index(path, str(path))
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(
                exclusive_lock(path.with_name(f".{path.name}.lock"), what=f"-o {str(path)!r}")
            )
        except OSError as error:
            raise OutputError(
                f"-o: expected a place that can be written, got {str(path)!r} ({error.strerror or error}); choose another"
            ) from error
        yield IndexFile(path, _previous(path, str(path)), lambda: None)


def _previous(path: Path, shown: str) -> Index | None:
    _check_is_index(path, shown)
    return Index.load(path) if path.exists() else None


def _check_is_index(path: Path, shown: str) -> None:
    """Check that what is there, if anything, is an index."""
    if not os.path.lexists(path):
        return
    try:
        found = "" if CLASSES in (pq.read_schema(path).metadata or {}) else "another table"
    except (pa.ArrowException, OSError, ValueError):
        found = "a folder" if path.is_dir() else "another file"
    if found:
        raise RequestError(
            f"-o: expected a new file, or an index to bring up to date, got {shown!r}, {found}; choose another -o, or move "
            "it away"
        )


def _is_same(path: Path, other: Path | str) -> bool:
    try:
        return os.path.samefile(path, other)  # noqa: PTH121 - takes strings that are no paths
    except (OSError, ValueError):
        return False
