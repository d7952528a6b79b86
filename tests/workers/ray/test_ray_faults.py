"""What is killed costs time and nothing else: the same batches, the same records, nothing twice, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import TESTS, Cluster, Node, ray_cluster, wait_until
from lightwell.pipeline.errors import WorkerDiedError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import BatchDigest, digest_batch, digest_feed
from lightwell.workers.local import run_batch_job
from lightwell.workers.ray.cluster import connected
from lightwell.workers.ray.engine import RayEngine
from pictures import make_folder
from ray_jobs import Sums, files_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

VIEW = View(shuffle=True, augment=True, num_epochs=8)
WORKER = "ray::Batch"
PARTS = "stages/*/parts/part-*.parquet"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """24 pictures, one of them cut off after indexing; 96 batches in eight epochs."""
    folder = tmp_path_factory.mktemp("faults")
    photos = make_folder(folder / "photos", num_images=24)
    build_index(photos, fractions={"test": 1.0}).save(folder / "index.parquet")
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    augment = [{"RandomResizedCrop": {"size": [32, 32]}}, {"HorizontalFlip": {}}]
    content = {"index": folder / "index.parquet", "augment": augment, "batch": {"size": 2}}
    return Plan.model_validate(content)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and a node with one CPU."""
    with ray_cluster(0, 1) as found, connected(found.address):
        yield found


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """While it is there, whoever works on one of the batches is killed."""
    found = tmp_path / "trap"
    found.touch()
    return found


def workers_of(node: Node) -> list[int]:
    return node.pids_of(WORKER)


def read_slowly(plan: Plan, engine: RayEngine, hurt: dict[int, object]) -> list[BatchDigest]:
    """Read a feed; after some batches, something happens."""
    facts = []
    with engine.feed(plan, VIEW) as feed:
        for number, batch in enumerate(feed):
            facts.append(digest_batch(batch))
            del batch
            if number in hurt:
                hurt[number]()  # type: ignore[operator]
    return facts


@pytest.mark.fault("Ray: SIGKILL of a worker, then of its node while another joins")
def test_workers_nodes_and_late_nodes(plan: Plan, cluster: Cluster) -> None:
    """A worker's process is killed, then a node joins, and then the first node is lost."""
    expected = digest_feed(LocalEngine(num_threads=1).feed(plan, VIEW))
    first = cluster.nodes[1]
    done: list[str] = []

    def kill_worker() -> None:
        (pid,) = workers_of(first)
        os.kill(pid, signal.SIGKILL)
        done.append("worker")

    def exchange_nodes() -> None:
        late = cluster.add_node(1)
        cluster.kill_node(first)
        wait_until(lambda: workers_of(late), 60, "a worker on the node that joined late")
        done.append("nodes")

    got = read_slowly(plan, RayEngine(num_workers=1), {5: kill_worker, 30: exchange_nodes})
    assert done == ["worker", "nodes"]
    assert got == expected


@pytest.mark.fault("Ray: SIGKILL of a raylet alone")
def test_a_killed_raylet_whose_node_lives_on(plan: Plan, cluster: Cluster) -> None:
    """The raylet holds the object store: what lies finished there is lost with it."""
    expected = digest_feed(LocalEngine(num_threads=1).feed(plan, VIEW))
    first = cluster.nodes[1]
    others: list[int] = []

    def kill_raylet() -> None:
        cluster.add_node(1)
        (raylet,) = first.pids_of("raylet/raylet")
        assert workers_of(first)
        os.kill(raylet, signal.SIGKILL)
        others.extend(pid for pid in first.pids() if pid != raylet)

    got = read_slowly(plan, RayEngine(num_workers=1), {20: kill_raylet})
    assert others, "nothing else of the node was killed"
    assert got == expected
    cluster.kill_node(first)


@pytest.mark.fault("Ray: a node joins late")
@pytest.mark.slow
def test_a_node_that_joins_late_is_used_beside_the_others(plan: Plan, cluster: Cluster) -> None:
    view = View(shuffle=True, augment=True, num_epochs=24)
    job = Sums(plan, view, seconds=0.2)
    (before,) = cluster.nodes[1:]
    late: list[Node] = []

    class Watching(SilentConsole):
        def track(self, batches, label):
            for number, batch in enumerate(batches):
                if number == 2:
                    late.append(cluster.add_node(1))
                yield batch
                if late and workers_of(late[0]) and workers_of(before):
                    used.add(late[0].ip)

    used: set[str] = set()
    out = plan.index.parent / "late"
    found = run_batch_job(job, RayEngine(), out, Watching(), part_images=20)
    assert used == {late[0].ip}
    assert found == run_batch_job(
        Sums(plan, view),
        LocalEngine(num_threads=1),
        plan.index.parent / "local",
        SilentConsole(),
        part_images=20,
    )
    assert files_of(out) == files_of(plan.index.parent / "local")
    cluster.kill_node(late[0])


@pytest.mark.fault("Ray: a batch that kills its worker: the run stops and names it")
def test_a_batch_that_kills_its_worker_is_named_and_costs_nothing_done_before(
    plan: Plan, tmp_path: Path, cluster: Cluster, trap: Path
) -> None:
    assert cluster.address
    assert_named_and_nothing_lost(plan, tmp_path, trap, RayEngine(num_workers=1))


@pytest.mark.fault("Ray, separate: a batch that kills the worker of the job: the run stops and names it")
def test_a_batch_that_kills_the_jobs_own_worker_is_named_too(
    plan: Plan, tmp_path: Path, cluster: Cluster, trap: Path
) -> None:
    beside = cluster.add_node(1)
    assert_named_and_nothing_lost(plan, tmp_path, trap, RayEngine(num_workers=1, placement="separate"))
    cluster.kill_node(beside)


def assert_named_and_nothing_lost(plan: Plan, tmp_path: Path, trap: Path, engine: RayEngine) -> None:
    job = Sums(plan, View(augment=True), trap=trap, trapped=7)
    out = tmp_path / "out"
    with pytest.raises(WorkerDiedError, match=r"epoch 0, step 7: .* died [0-9]+ times while making it"):
        run_batch_job(job, engine, out, SilentConsole(), part_images=4)
    assert len(list(out.glob(PARTS))) >= 1
    trap.unlink()
    found = run_batch_job(job, engine, out, SilentConsole(), part_images=4)
    assert found == run_batch_job(
        job, LocalEngine(num_threads=1), tmp_path / "local", SilentConsole(), part_images=4
    )
    assert files_of(out) == files_of(tmp_path / "local")


DRIVER = """
import sys
from pathlib import Path
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.jobs.progress import SilentConsole
from lightwell.pipeline.plan.view import View
from lightwell.workers.ray.engine import RayEngine
from lightwell.workers.local import run_batch_job
from ray_jobs import Sums

plan, out, address = Plan.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
view = View(shuffle=True, augment=True, num_epochs=8)
run_batch_job(Sums(plan, view, seconds=0.1), RayEngine(address, 1), out, SilentConsole(), part_images=10)
"""


@pytest.mark.fault("Ray: SIGKILL of the driver")
def test_a_driver_that_is_killed_is_taken_up_by_the_next(
    plan: Plan, tmp_path: Path, cluster: Cluster
) -> None:
    plan.save(tmp_path / "plan.yaml")
    out = tmp_path / "out"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, tmp_path / "plan.yaml", out, cluster.address],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        start_new_session=True,
    )
    wait_until(lambda: len(list(out.glob(PARTS))) >= 4, 90, "four parts")
    driver.kill()
    driver.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob(PARTS)}
    assert 4 <= len(kept) < 19
    told: list[str] = []
    console = SilentConsole()
    console.print = told.append  # type: ignore[method-assign]
    job = Sums(plan, VIEW)
    found = run_batch_job(job, RayEngine(num_workers=1), out, console, part_images=10)
    assert told[0] == f"records: resuming after {10 * len(kept)} images that are done"
    assert found == run_batch_job(
        job, LocalEngine(num_threads=1), tmp_path / "local", SilentConsole(), part_images=10
    )
    assert files_of(out) == files_of(tmp_path / "local")
