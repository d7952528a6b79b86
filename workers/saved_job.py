"""Loads the job of a finished run from its output folder, where ``run_batch_job`` has kept it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..pipeline.errors import RequestError
from ..pipeline.jobs.job_file import load_job
from ..pipeline.jobs.stages import BatchJob
from ..pipeline.uris import public_uri
from .output_store import Mirror, is_remote, local_path
from .results import JOB_NAME

if TYPE_CHECKING:
    from ..pipeline.jobs.stages import AnyBatchJob


def load_saved_job(
    out: str, *, allow_import: Sequence[str] = (), changes: Mapping[str, Any] | None = None
) -> AnyBatchJob:
    """Build the job of a finished run from ``stages/job.yaml`` in its output folder.

    Args:
        out: the folder, or a URI.
        allow_import: modules that the job and its plan may be imported from, each with its submodules.
        changes: keys of the job with other values.

    Raises:
        RequestError: there is no such file.
        PlanError: the file is invalid, a change is not a key of the job, or an import is not allowed.
        OutputError: the URI cannot be read.
    """
    if not is_remote(out):
        return _load(local_path(out), out, allow_import, changes or {})
    with tempfile.TemporaryDirectory(prefix="lightwell-") as scratch:
        mirror = Mirror(out, Path(scratch), option="report")
        mirror.fetch_files([JOB_NAME])
        return _load(Path(scratch), out, allow_import, changes or {})


def _load(folder: Path, out: str, allow_import: Sequence[str], changes: Mapping[str, Any]) -> AnyBatchJob:
    path = folder / JOB_NAME
    if not path.is_file():
        raise RequestError(
            f"report: expected the folder of a run that `lightwell audit` finished, got {public_uri(out)!r} without "
            f"{JOB_NAME}; give the --out of the run"
        )
    job: AnyBatchJob = load_job(
        path, default="", allow_import=allow_import, contract=BatchJob, changes=changes
    )
    return job
