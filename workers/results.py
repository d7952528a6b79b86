"""Opens the output folder of a job, with checks against overwriting other files and inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.contracts import DeclaresBookkeepingFolder, DeclaresOutputs
from ..pipeline.jobs.stages import SINGLE_STAGE, SingleStageJob
from ..pipeline.monitor.quarantine import QUARANTINE_NAME
from ..pipeline.outputs.folder import OutputFolder
from ..pipeline.outputs.input_overlap import check_reads, iter_input_paths
from .output_store import OutputStore, is_remote, open_output_store
from .record_store import STAGES, RecordStore

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import TrainingJob
    from ..pipeline.jobs.stages import AnyBatchJob

COUNTS_NAME = "counts.json"
JOB_NAME = f"{STAGES}/job.yaml"
"""The job of a batch run, for ``lightwell report``."""
OWN_NAMES = (QUARANTINE_NAME, COUNTS_NAME)
"""Files that the runner writes for every job."""


def stage_folder(key: str) -> str:
    """Return the folder of a stage's records, relative to the output folder.

    Args:
        key: ``NAME-FINGERPRINT``.
    """
    return f"{STAGES}/{key}"


@dataclass(frozen=True)
class Results:
    """Open output folder of a job."""

    folder: OutputFolder
    output_store: OutputStore
    bookkeeping: str = ""
    """Subfolder for records, counts and the quarantine list; empty for the output folder itself."""

    @property
    def path(self) -> Path:
        """Local path of the output folder."""
        return self.folder.path

    def name(self, name: str) -> str:
        """Return the name of a bookkeeping file, relative to the output folder."""
        return f"{self.bookkeeping}/{name}" if self.bookkeeping else name

    def claim(self, name: str) -> Path:
        """Claim a bookkeeping file; returns its path."""
        self.folder.claim(self.name(name))
        path = self.path / self.name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@contextmanager
def open_results(
    job: AnyBatchJob | TrainingJob,
    out: Path | str,
    *,
    stages: Sequence[str] = (),
    lock: bool = True,
    reads: Iterable[Path | str] = (),
    check_inputs: bool = True,
) -> Iterator[Results]:
    """Open the output folder of a job, new or of an earlier run.

    Args:
        job: the job.
        out: a folder or a URI.
        stages: keys of a batch job's stages, ``NAME-FINGERPRINT``.
        lock: False if the caller already holds the lock.
        reads: input files, besides those that the job names.
        check_inputs: False if no input is read.

    Raises:
        RequestError: the run would overwrite other files or its own inputs, or another run writes there.
        OutputError: the folder cannot be read or written.
    """
    bookkeeping = job.bookkeeping_folder if isinstance(job, DeclaresBookkeepingFolder) else ""
    names = [*OWN_NAMES, *((JOB_NAME,) if stages else ())]
    names += [name for key in stages for name in RecordStore.patterns(stage_folder(key))]
    own = [f"{bookkeeping}/{name}" if bookkeeping else name for name in names]
    if isinstance(job, SingleStageJob):
        own.append(f"{SINGLE_STAGE}.parquet")
    declared = list(job.outputs) if isinstance(job, DeclaresOutputs) else None
    written = [*own, *(declared or ())]
    with open_output_store(out, lock=lock, outputs=None if declared is None else written) as store:
        remote = is_remote(out)
        files_read = [*reads, *iter_input_paths(job)]

        def check(folder: OutputFolder) -> None:
            if not check_inputs:
                return
            check_reads(
                folder, written, reads=files_read, index_path=job.plan.index, load_index=job.plan.load_index,
                destination=store.destination if remote else "",
            )  # fmt: skip

        with OutputFolder.open(
            store.folder,
            kind=type(job).__name__,
            outputs=None if declared is None else written,
            lock=lock and not remote,
            remote_names=store.remote_names,
            check=check,
        ) as folder:
            yield Results(folder, store, bookkeeping)


def declared_outputs(job: Any) -> Collection[str]:
    """Return the outputs that a job declares; empty if it declares none."""
    return tuple(job.outputs) if isinstance(job, DeclaresOutputs) else ()
