"""Batch jobs on Ray: the same files as the local engine writes, and each engine takes up what the other left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lightwell.cli.engine import open_engine
from lightwell.cli.options import EngineName
from lightwell.pipeline.errors import ModelError, PlanError, RequestError
from lightwell.pipeline.export.materialize import Materialize
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.contracts import Engine
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from lightwell.workers.ray.cluster import Resources
from lightwell.workers.ray.engine import RayEngine
from pictures import make_folder
from ray_jobs import Sums, files_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

LOCAL = LocalEngine(num_threads=1)
COLOCATED = RayEngine(num_workers=2)
SEPARATE = RayEngine(num_workers=1, placement="separate")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """23 pictures, one of them cut off after indexing."""
    folder = tmp_path_factory.mktemp("jobs")
    photos = make_folder(folder / "photos", num_images=23)
    build_index(photos, fractions={"test": 1.0}).save(folder / "index.parquet")
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    policy = [{"Resize": {"height": 32, "width": 32}}]
    content = {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    return Plan.model_validate(content)


def run(job: Any, engine: Engine, out: Path) -> tuple[Any, dict[str, str]]:
    found = run_batch_job(job, engine, out, SilentConsole(), part_images=5)
    return found, files_of(out)


class Stopping(SilentConsole):
    """Interrupts, as Ctrl-C does, after some batches."""

    def __init__(self, num_batches: int) -> None:
        self._left = num_batches

    def track(self, batches: Any, label: str) -> Any:
        for batch in batches:
            if not self._left:
                raise KeyboardInterrupt
            self._left -= 1
            yield batch


@pytest.mark.parametrize(
    "engine",
    [COLOCATED, SEPARATE, replace(SEPARATE, num_job_workers=2)],
    ids=["colocated", "separate", "separate, two job workers"],
)
def test_a_job_writes_the_same_files_as_on_the_local_engine(
    plan: Plan, tmp_path: Path, engine: RayEngine
) -> None:
    expected = run(Sums(plan), LOCAL, tmp_path / "local")
    assert expected[0]["counts"] == {"read": 23, "used": 22, "replaced": 1, "skipped": 0}
    assert expected[0]["bad"] == ["dog/003.jpg"]
    stage = next(name for name in expected[1] if name.startswith("stages/records-"))
    assert sorted(expected[1]) == ["counts.json", "quarantine.jsonl", "records.parquet", stage]
    assert run(Sums(plan), engine, tmp_path / "ray") == expected


@pytest.mark.parametrize(
    ("first", "then"), [(LOCAL, COLOCATED), (COLOCATED, LOCAL)], ids=["ray ends it", "local ends it"]
)
def test_one_engine_takes_up_what_the_other_left(
    plan: Plan, tmp_path: Path, first: Engine, then: Engine
) -> None:
    expected = run(Sums(plan), LOCAL, tmp_path / "whole")
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_batch_job(Sums(plan), first, out, Stopping(7), part_images=5)
    parts = sorted(out.glob("stages/*/parts/part-*.parquet"))
    assert len(parts) == 2  # of three batches each; the seventh is lost
    said: list[str] = []
    console = SilentConsole()
    console.print = said.append  # type: ignore[method-assign]
    found = run_batch_job(Sums(plan), then, out, console, part_images=5)
    assert said[0] == "records: resuming after 12 images that are done"
    assert (found, files_of(out)) == expected


def test_a_job_that_keeps_its_own_parts_writes_the_same_shards(plan: Plan, tmp_path: Path) -> None:
    job = Materialize(plan=plan, shard_images=8)
    expected = run(job, LOCAL, tmp_path / "local")
    assert expected[0]["written"] == 22
    assert run(job, COLOCATED, tmp_path / "ray") == expected


def test_job_workers_are_counted_with_the_batch_workers_and_only_allowed_with_separate(
    plan: Plan, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"2 workers of 1 CPUs and 3 workers of 1 CPUs.*1 of them never fit"):
        run(Sums(plan), replace(SEPARATE, num_workers=2, num_job_workers=3), tmp_path / "out")
    for wrong in (COLOCATED, SEPARATE):
        number = 2 if wrong.placement == "colocated" else 0
        with pytest.raises(PlanError, match=f"got {number} with {wrong.placement}; add --placement separate"):
            replace(wrong, num_job_workers=number)
    with pytest.raises(PlanError, match="got 2 with colocated"):
        open_engine(EngineName.ray, job_workers=2)
    with pytest.raises(RequestError, match="--job-workers, got local; add --engine ray"):
        open_engine(job_workers=2)


def test_an_error_of_a_job_arrives_as_it_was_raised(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected weights, got none"):
        run(Sums(plan, broken=True), RayEngine(num_workers=1), tmp_path / "out")


def test_a_worker_with_more_cpus_has_more_threads(plan: Plan, tmp_path: Path) -> None:
    expected = run(Sums(plan), LOCAL, tmp_path / "local")
    assert run(Sums(plan), RayEngine(per_worker=Resources(2)), tmp_path / "ray") == expected
    assert json.loads((tmp_path / "ray" / "counts.json").read_text())["read"] == 23
