"""Declared GPUs: which workers reserve them, where workers are placed, and the same records as without any. The GPUs need not exist."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, Node, ray_cluster
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.workers.local import run_batch_job
from lightwell.workers.ray.cluster import Resources, connected
from lightwell.workers.ray.engine import RayEngine
from pictures import make_folder
from ray_jobs import Sums, files_of

pytestmark = pytest.mark.ray

VIEW = View(shuffle=True, augment=True, num_epochs=3)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, a node with two CPUs, and one with two CPUs and a GPU."""
    with ray_cluster(0, 2) as found:
        found.add_node(2, num_gpus=1)
        with connected(found.address):
            yield found


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("gpus")
    build_index(make_folder(folder / "photos", num_images=23), fractions={"test": 1.0}).save(
        folder / "index.parquet"
    )
    augment = [{"RandomResizedCrop": {"size": [32, 32]}}, {"HorizontalFlip": {}}]
    content = {"index": folder / "index.parquet", "augment": augment, "batch": {"size": 2}}
    return Plan.model_validate(content)


class Watching(SilentConsole):
    """Looks where which actors are while a job runs."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        self._nodes = nodes
        self.seen: dict[str, set[tuple[str, int]]] = {}

    def track(self, batches: Iterable[Any], label: str) -> Iterator[Any]:
        for batch in batches:
            yield batch
            for name, node in self._nodes.items():
                for kind in ("BatchActor", "StageActor", "BatchStageActor"):
                    found = {(name, pid) for pid in node.pids_of(f"ray::{kind}")}
                    self.seen.setdefault(kind, set()).update(found)

    def places(self, kind: str) -> list[str]:
        return sorted(name for name, _ in self.seen[kind])


def run_watched(cluster: Cluster, plan: Plan, engine: RayEngine, folder: Path) -> Watching:
    """Run a job and compare what it leaves with that of the local engine."""
    console = Watching(dict(zip(("head", "cpu", "gpu"), cluster.nodes, strict=True)))
    found = run_batch_job(Sums(plan, VIEW, seconds=0.02), engine, folder / "ray", console, part_images=6)
    expected = run_batch_job(
        Sums(plan, VIEW), LocalEngine(num_threads=1), folder / "local", SilentConsole(), part_images=6
    )
    assert found == expected
    assert files_of(folder / "ray") == files_of(folder / "local")
    return console


def test_two_workers_share_the_gpu_of_the_node_that_has_it(
    cluster: Cluster, plan: Plan, tmp_path: Path
) -> None:
    console = run_watched(cluster, plan, RayEngine(num_workers=2, per_worker=Resources(1, 0.5)), tmp_path)
    assert console.places("BatchStageActor") == ["gpu", "gpu"]


def test_separate_works_where_the_gpu_is_and_makes_batches_elsewhere(
    cluster: Cluster, plan: Plan, tmp_path: Path
) -> None:
    per_worker = Resources(1, 0.5)
    engine = RayEngine(num_workers=2, per_worker=per_worker, placement="separate", num_job_workers=2)
    console = run_watched(cluster, plan, engine, tmp_path)
    assert console.places("StageActor") == ["gpu", "gpu"]
    assert console.places("BatchActor") == ["cpu", "cpu"]


def test_gpus_that_nobody_has_are_refused(cluster: Cluster, plan: Plan, tmp_path: Path) -> None:
    assert cluster.address
    for engine, told in (
        (RayEngine(per_worker=Resources(1, 2)), "largest node has 2 CPUs and 1 GPUs"),
        (RayEngine(num_workers=3, per_worker=Resources(0.5, 0.5)), "1 of them never fit"),
        (
            RayEngine(per_worker=Resources(1, 1), placement="separate", num_job_workers=2),
            "1 of them never fit",
        ),
    ):
        with pytest.raises(PlanError, match=told):
            run_batch_job(Sums(plan), engine, tmp_path / "out", SilentConsole())
