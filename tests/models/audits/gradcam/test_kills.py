"""An audit that is killed in any of its stages ends with the bytes of one that was not."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import warm
from killed_audits import STAGES, audit, options, set_traps
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.pipeline.jobs.progress import SilentConsole
from patience import HANG_S
from ray_jobs import files_of


@pytest.fixture(scope="module")
def whole(marked: tuple[Plan, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the files of an audit that nothing interrupted."""
    plan, checkpoint = marked
    out = tmp_path_factory.mktemp("whole")
    job = GradCamAudit(**options(plan, checkpoint))
    run_batch_job(job, LocalEngine(num_threads=1), out, SilentConsole())
    return files_of(out)


@pytest.mark.fault("SIGKILL in each stage of an audit", times=len(STAGES))
def test_an_audit_killed_in_each_of_its_stages_ends_with_the_same_bytes(
    marked: tuple[Plan, Path], whole: dict[str, str], tmp_path: Path
) -> None:
    traps, codes = set_traps(tmp_path / "traps"), [-signal.SIGKILL]
    while codes[-1] and len(codes) <= len(STAGES) + 1:
        process = warm.start(audit, *marked, traps, tmp_path / "out")
        process.join(HANG_S)
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL] * (len(STAGES) + 1) + [0]
    assert list(traps.iterdir()) == []
    assert files_of(tmp_path / "out") == whole
