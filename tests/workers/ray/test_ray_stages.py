"""Batch jobs of several stages on Ray: the files of the local engine, whatever is killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.pipeline.errors import PlanError, WorkerDiedError
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.testing import assert_batch_job
from lightwell.workers.local import rewrite_results
from lightwell.workers.ray.engine import RayEngine
from ray_jobs import files_of
from stage_jobs import BrokenStage, Chain, ChainOneAtATime, ChainWithThumbnails, Trap, plan_in

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

LOCAL = LocalEngine(num_threads=2)
COLOCATED = RayEngine(num_workers=2)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """23 pictures, one of them cut off, one lost."""
    return plan_in(tmp_path_factory.mktemp("stages"))


def test_stages_over_every_kind_of_source_leave_the_files_of_the_local_engine(
    plan: Plan, tmp_path: Path
) -> None:
    assert_batch_job(ChainWithThumbnails(plan), LOCAL, tmp_path, others=[COLOCATED])


@pytest.mark.fault("Ray: SIGKILL of a worker in each stage of a batch job of three")
@pytest.mark.parametrize(
    "stage",
    [
        "colours",
        pytest.param("sizes", marks=pytest.mark.slow),
        pytest.param("darkest", marks=pytest.mark.slow),
    ],
)
def test_a_worker_killed_in_a_stage_loses_nothing(plan: Plan, tmp_path: Path, stage: str) -> None:
    """The run ends, since the item kills every worker that is given it, and the next run takes it up."""
    expected = run_batch_job(Chain(plan), LOCAL, tmp_path / "whole", part_images=4)
    trap, out = tmp_path / "trap", tmp_path / "out"
    trap.touch()
    job = Chain(plan, trap=Trap(trap, stage, plan.load_index().table["key"].to_pylist()[22]))
    with pytest.raises(WorkerDiedError):
        run_batch_job(job, COLOCATED, out, SilentConsole(), part_images=4)
    trap.unlink()
    assert run_batch_job(Chain(plan), COLOCATED, out, part_images=4) == expected
    assert files_of(out) == files_of(tmp_path / "whole")
    titled = rewrite_results(Chain(plan, title="Again"), LOCAL, out)
    assert titled == {**expected, "title": "Again"}
    assert json.loads((out / "dark.json").read_text()) == json.loads(json.dumps(titled))


def test_a_worker_processes_rows_one_item_after_another(plan: Plan, tmp_path: Path) -> None:
    expected = run_batch_job(Chain(plan), LOCAL, tmp_path / "local")
    assert run_batch_job(ChainOneAtATime(plan), COLOCATED, tmp_path / "ray") == expected


def test_an_error_of_a_stage_arrives_as_it_was_raised(plan: Plan, tmp_path: Path) -> None:
    class Broken(Chain):
        @property
        def stages(self) -> tuple[BrokenStage, ...]:
            return (BrokenStage(self.plan, Trap(), function=list),)

    with pytest.raises(PlanError, match="got a list; return"):
        run_batch_job(Broken(plan), COLOCATED, tmp_path / "out")
