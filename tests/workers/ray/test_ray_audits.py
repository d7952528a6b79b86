"""An audit on a cluster, whose workers are killed, leaves the files of the local engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from killed_audits import TrappedAudit, options, set_traps
from lightwell import LocalEngine, run_batch_job
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.workers.ray.engine import RayEngine
from ray_jobs import files_of
from shortcut import marked_plan, train_on_mark


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
@pytest.mark.fault("Ray: SIGKILL of a worker in each stage of an audit", times=4)
def test_an_audit_whose_workers_are_killed_leaves_the_bytes_of_the_local_engine(tmp_path: Path) -> None:
    plan = marked_plan(tmp_path / "data")
    checkpoint = train_on_mark(plan, tmp_path / "marked.safetensors")
    audit = GradCamAudit(**options(plan, checkpoint))
    run_batch_job(audit, LocalEngine(num_threads=1), tmp_path / "whole", SilentConsole())
    traps = set_traps(tmp_path / "traps")
    job = TrappedAudit(**options(plan, checkpoint), traps=traps)
    run_batch_job(job, RayEngine(num_workers=1), tmp_path / "out", SilentConsole())
    assert list(traps.iterdir()) == []
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
