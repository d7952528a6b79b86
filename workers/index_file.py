"""Opens the output file of an index: a path or a URI, with one writer at a time; other files are never overwritten."""

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
    """Open output file of an index."""

    path: Path
    """Local path; for a URI, a temporary file."""
    previous: Index | None
    """Index of an earlier run at the same place."""
    publish: Callable[[], None]
    """Uploads the file to its URI; called once it is complete."""


@contextmanager
def open_index_file(output: Path | str, *, reads: Iterable[Path | str] = ()) -> Iterator[IndexFile]:
    """Open the output file of an index.

    An interrupted run is resumed only if the file is local: its checkpoint is stored beside the index.

    Args:
        output: a path or a URI.
        reads: input files of the run.

    Raises:
        RequestError: the file exists and is not an index, is an input of the run, or is being written by another run.
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
                f"-o: expected a writable path, got {str(path)!r} ({error.strerror or error}); choose another"
            ) from error
        yield IndexFile(path, _previous(path, str(path)), lambda: None)


def _previous(path: Path, shown: str) -> Index | None:
    _check_is_index(path, shown)
    return Index.load(path) if path.exists() else None


def _check_is_index(path: Path, shown: str) -> None:
    """Check that an existing file is an index."""
    if not os.path.lexists(path):
        return
    try:
        found = "" if CLASSES in (pq.read_schema(path).metadata or {}) else "another table"
    except (pa.ArrowException, OSError, ValueError):
        found = "a folder" if path.is_dir() else "another file"
    if found:
        raise RequestError(
            f"-o: expected a new file, or an index to update, got {shown!r}, {found}; choose another -o, or move it away"
        )


def _is_same(path: Path, other: Path | str) -> bool:
    try:
        return os.path.samefile(path, other)  # noqa: PTH121 - takes strings that are no paths
    except (OSError, ValueError):
        return False
