"""What dies around a service, and what its consumers notice of it: nothing, but that it takes longer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import albumentations as A
import pytest
import ray
from clusters import Cluster, ray_cluster, wait_until
from deadly import Deadly
from lightwell.pipeline.errors import WorkerDiedError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View
from lightwell.pipeline.runtime.local_engine import LocalEngine
from lightwell.testing import digest_batch
from lightwell.workers.ray.cluster import Resources, connected
from lightwell.workers.ray.engine import RayEngine
from lightwell.workers.service.engine import ServiceEngine
from lightwell.workers.service.host import Service, start_service
from lightwell.workers.service.sharing import SharingRules
from patience import HANG_S
from pictures import make_folder, make_picture, write_picture

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TRAINING = View(split="train", shuffle=True, augment=True, num_epochs=5)
NUM_BATCHES = 30
READER = Path(__file__).with_name("reader.py")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """24 images in six batches an epoch, each of 196 kB: Ray keeps what is over 100 kB on the node that made it."""
    folder = tmp_path_factory.mktemp("faults")
    build_index(make_folder(folder / "photos", num_images=24), fractions={"train": 1.0}).save(
        folder / "index.parquet"
    )
    policy = [A.RandomResizedCrop((128, 128)), A.HorizontalFlip()]
    found = Plan.model_validate(
        {"index": folder / "index.parquet", "augment": policy, "batch": {"size": 4}, "seed": 5}
    )
    found.save(folder / "plan.yaml")
    return found


@pytest.fixture(scope="module")
def expected(plan: Plan) -> list[Any]:
    """What every consumer has to get."""
    with LocalEngine(num_threads=1).feed(plan, TRAINING) as feed:
        return [digest_batch(batch) for batch in feed]


@pytest.fixture
def service(cluster: Cluster, plan: Plan) -> Iterator[Service]:
    """Two workers, and consumers that count as dead after two seconds."""
    engine = RayEngine(cluster.address, 2, Resources(1.0))
    found = start_service(plan, TRAINING, "faults", engine, SharingRules(window=4, heartbeat_timeout_s=2.0))
    yield found
    found.stop()


def pids_of(cluster: Cluster, name: str) -> list[int]:
    return [pid for node in cluster.nodes for pid in node.pids_of(name)]


@pytest.mark.fault("SIGKILL a service's consumer", times=2)
def test_a_killed_consumer_holds_nobody_back_and_goes_on_where_it_was(
    cluster: Cluster, service: Service, plan: Plan, expected: list[Any], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()

    def start(seconds: float) -> subprocess.Popen[bytes]:
        view = json.dumps(asdict(TRAINING))
        command = [sys.executable, READER, plan.index.with_name("plan.yaml"), view, "faults", cluster.address]
        return subprocess.Popen([*map(str, command), "victim", str(log), str(seconds)])

    def lines() -> list[str]:
        return log.read_text().splitlines()

    for _ in range(2):
        before = len(lines())
        victim = start(0.2)
        wait_until(lambda before=before: len(lines()) >= before + 3, HANG_S, "three batches more")
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    with ServiceEngine("faults", consumer="lives").feed(plan, TRAINING) as feed:
        assert [digest_batch(batch) for batch in feed] == expected
    (one,) = [one for one in service.status()["consumers"] if one["name"] == "victim"]
    assert one["state"] == "silent"
    assert 0 <= len(set(lines())) - one["number"] <= 1, "the service knows where it stood"
    assert start(0.0).wait() == 0
    read = [repr((facts.epoch, facts.step, facts)) for facts in expected]
    assert sorted(set(lines()), key=read.index) == read, "nothing is lost"
    assert len(lines()) <= NUM_BATCHES + 2, "given again is at most what was at work, at each kill"


@pytest.mark.fault("SIGKILL a service's worker", times=2)
def test_a_killed_worker_costs_no_batch(
    cluster: Cluster, service: Service, plan: Plan, expected: list[Any]
) -> None:
    facts = []
    with ServiceEngine("faults").feed(plan, TRAINING) as feed:
        for number, batch in enumerate(feed):
            facts.append(digest_batch(batch))
            if number in (5, 12):
                os.kill(pids_of(cluster, "ray::BuildWorker")[0], signal.SIGKILL)
    assert facts == expected
    assert service.status()["made_again"] == 0


@pytest.mark.fault("SIGKILL a service", times=1)
def test_a_killed_server_comes_back_and_consumers_go_on(
    cluster: Cluster, service: Service, plan: Plan, expected: list[Any]
) -> None:
    facts = []
    with ServiceEngine("faults", consumer="goes on").feed(plan, TRAINING) as feed:
        for number, batch in enumerate(feed):
            facts.append(digest_batch(batch))
            if number == 10:
                (pid,) = pids_of(cluster, "ray::Server")
                os.kill(pid, signal.SIGKILL)
    assert facts == expected
    status = service.status()
    assert [(one["name"], one["number"]) for one in status["consumers"]] == [("goes on", NUM_BATCHES)]
    assert status["made"] <= NUM_BATCHES - 10


@pytest.mark.fault("SIGKILL the node that makes a service's batches", times=1)
def test_the_death_of_the_node_that_makes_them_costs_no_batch(plan: Plan, expected: list[Any]) -> None:
    ray.shutdown()
    with ray_cluster(1) as cluster, connected(cluster.address):
        engine = RayEngine(cluster.address, 1, Resources(1.0))
        blocker = ray.remote(Blocker).options(num_cpus=1).remote()
        ray.get(blocker.wait.remote())
        service = start_service(plan, TRAINING, "node", engine, SharingRules(window=6))
        node = cluster.add_node(1)  # after the server has found its place, and before its maker has
        facts = []
        with ServiceEngine("node", consumer="fast").feed(plan, TRAINING) as feed:
            for number, batch in enumerate(feed):
                facts.append(digest_batch(batch))
                if number == 7:
                    wait_until(
                        lambda: not service.status()["making"], HANG_S, "batches that lie finished there"
                    )
                    assert pids_of(cluster, "ray::BuildWorker") == node.pids_of("ray::BuildWorker")
                    assert not node.pids_of("ray::Server")
                    cluster.kill_node(node)
                    ray.kill(blocker)
        assert facts == expected
        assert service.status()["made_again"] >= 1, "what lay finished on that node is gone"
        wait_until(lambda: service.status()["makers"] == 1, HANG_S, "a worker on another node")


class Blocker:
    """Holds the head's CPU, so that workers go elsewhere."""

    def wait(self) -> None:
        """Answer once it is there."""


@pytest.mark.fault("a batch that kills its workers, beside others: the service names it and goes on", times=2)
def test_a_batch_that_kills_its_workers_is_named_and_no_other_is_blamed(
    cluster: Cluster, plan: Plan, tmp_path: Path
) -> None:
    trap = tmp_path / "trap"
    trap.touch()
    photos = make_folder(tmp_path / "photos", num_images=23)
    write_picture(photos / "dog" / "deadly.jpg", make_picture(3, 50, 77))
    build_index(photos, fractions={"train": 1.0}).save(tmp_path / "index.parquet")
    ends = Deadly(width=77, trap=str(trap))
    content = plan.dump()
    deadly = Plan.model_validate(
        {**content, "index": tmp_path / "index.parquet", "augment": [ends, *content["augment"]]}
    )
    view = View(split="train", augment=True)
    row = deadly.load_index().table["key"].to_pylist().index("dog/deadly.jpg")
    service = start_service(deadly, view, "deadly", RayEngine(cluster.address, 2, Resources(1.0)))
    try:
        for _ in range(2):
            with (
                pytest.raises(
                    WorkerDiedError,
                    match=f"epoch 0, step {row // 4}: .* died 4 times while making it",
                ),
                ServiceEngine("deadly").feed(deadly, view) as feed,
            ):
                for _ in feed:
                    pass
        trap.unlink()
        with ServiceEngine("deadly").feed(deadly, view) as feed:
            found = [digest_batch(batch) for batch in feed]
        with LocalEngine(num_threads=1).feed(deadly, view) as feed:
            assert found == [digest_batch(batch) for batch in feed]
    finally:
        service.stop()
