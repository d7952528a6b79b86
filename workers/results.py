"""Opens the output folder of a job: what it writes there, what it must not write over, and where it is kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.contracts import DeclaresOutputs
from ..pipeline.monitor.quarantine import QUARANTINE_NAME
from ..pipeline.outputs.folder import OutputFolder
from ..pipeline.outputs.reads import check_reads, iter_input_paths
from .output_store import Place, is_remote, opened
from .record_store import PATTERN

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import BatchJob, TrainingJob

RECORDS_NAME = "records.parquet"
COUNTS_NAME = "counts.json"


@dataclass(frozen=True)
class Results:
    """The open output folder of a job."""

    folder: OutputFolder
    place: Place
    bookkeeping: str = ""
    """Folder below the output folder for records, counts and the quarantine list; empty for the output folder itself."""

    @property
    def path(self) -> Path:
        """The folder of this process."""
        return self.folder.path

    def name(self, name: str) -> str:
        """Name a file of records, counts or the quarantine list, relative to the output folder."""
        return f"{self.bookkeeping}/{name}" if self.bookkeeping else name

    def claim(self, name: str) -> Path:
        """Claim such a file; returns its path."""
        self.folder.claim(self.name(name))
        path = self.path / self.name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def open_results(
    job: BatchJob | TrainingJob,
    out: Path | str,
    *,
    names: Sequence[str],
    lock: bool = True,
    reads: Iterable[Path | str] = (),
) -> Iterator[Results]:
    """Open the output folder of a job, or take it up from an earlier run.

    Args:
        job: what will write there.
        out: a folder or a URI.
        names: files that the runner itself writes: ``RECORDS_NAME``, ``PATTERN`` and so on.
        lock: False where the caller holds the folder already.
        reads: files that the run reads, besides those that the job names.

    Raises:
        RequestError: the folder holds other things where the run would write, the run reads from there, or another run
            writes there.
        OutputError: it cannot be read or written.
    """
    bookkeeping = str(getattr(job, "bookkeeping_folder", ""))
    own = [f"{bookkeeping}/{name}" if bookkeeping and name != PATTERN else name for name in names]
    declared = list(job.outputs) if isinstance(job, DeclaresOutputs) else None
    written = [*own, *(declared or ())]
    with opened(out, hold=lock, outputs=None if declared is None else written) as place:
        remote = is_remote(out)
        files_read = [*reads, *iter_input_paths(job)]

        def check(folder: OutputFolder) -> None:
            check_reads(
                folder, written, reads=files_read, index_path=job.plan.index, load_index=job.plan.load_index,
                destination=place.destination if remote else "",
            )  # fmt: skip

        with OutputFolder.open(
            place.folder,
            kind=type(job).__name__,
            outputs=None if declared is None else written,
            lock=lock and not remote,
            remote_names=place.elsewhere,
            check=check,
        ) as folder:
            yield Results(folder, place, bookkeeping)


BATCH_NAMES = (RECORDS_NAME, QUARANTINE_NAME, COUNTS_NAME, PATTERN)
"""What the runner of a batch job writes."""
TRAINING_NAMES = (QUARANTINE_NAME, COUNTS_NAME)
"""What the runner of a training job writes."""


def declared_by(job: Any) -> Collection[str]:
    """List what a job declares that it writes; empty where it declares nothing."""
    return tuple(job.outputs) if isinstance(job, DeclaresOutputs) else ()
