"""Joining a cluster: what cannot be had is said at once, before anything is sent there."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from clusters import Cluster, free_port, ray_cluster, wait_until
from lightwell.pipeline.errors import PlanError, RunError
from lightwell.workers.ray.cluster import (
    NodeResources,
    Resources,
    WorkerGroup,
    check_capacity,
    connect,
    connected,
    list_nodes,
)
from patience import HANG_S

NODES = [NodeResources(3), NodeResources(3), NodeResources(8, 2)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([WorkerGroup(1, Resources(16))], "largest node has 8 CPUs and 2 GPUs"),
        ([WorkerGroup(1, Resources(1, 3))], "expected 1 CPUs and 3 GPUs per worker"),
        (
            [WorkerGroup(7, Resources(2))],
            "7 workers of 2 CPUs.*1 of them never fit",
        ),  # 14 CPUs, in pieces of 3, 3 and 8
        ([WorkerGroup(5, Resources(1, 0.5))], "1 of them never fit"),
        ([WorkerGroup(4, Resources(2, 0.5)), WorkerGroup(3, Resources(2))], "1 of them never fit"),
    ],
)
def test_workers_that_a_cluster_can_never_hold_are_refused(groups: list[WorkerGroup], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_capacity(groups, NODES)


@pytest.mark.parametrize(
    "groups",
    [
        [WorkerGroup(6, Resources(2))],
        [WorkerGroup(4, Resources(1, 0.5))],
        [WorkerGroup(4, Resources(2, 0.5)), WorkerGroup(2, Resources(2))],
        [WorkerGroup(10, Resources(0, 0.2))],
        [WorkerGroup(30, Resources(0.1)), WorkerGroup(11, Resources(1))],
    ],
)
def test_workers_that_fit_are_let_through(groups: list[WorkerGroup]) -> None:
    check_capacity(groups, NODES)


@pytest.mark.parametrize("cpus_gpus", [(0, 0), (-1, 0), (1, 1.5)])
def test_resources_that_ray_does_not_know_are_refused(cpus_gpus: tuple[float, float]) -> None:
    with pytest.raises(PlanError, match=r"resources(\.cpus)?: expected"):
        Resources(*cpus_gpus)


@pytest.mark.parametrize("address", ["nonsense", "host", "ray://host", ":6379", "host:port"])
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    with pytest.raises(PlanError, match="address: expected host:port"):
        connect(address)


def test_where_no_cluster_answers_it_is_said_and_not_waited_for() -> None:
    started = time.monotonic()
    with pytest.raises(RunError, match="ray start --head"):
        connect(f"127.0.0.1:{free_port()}")
    assert time.monotonic() - started < HANG_S


@pytest.mark.ray
def test_a_cluster_has_its_nodes_and_nothing_is_left_of_it() -> None:
    with ray_cluster(1, 2) as cluster:
        folder, nodes = cluster.folder, list(cluster.nodes)
        with connected(cluster.address):
            assert list_nodes() == [NodeResources(2), NodeResources(1)]
            late = cluster.add_node(1, num_gpus=1)
            wait_until(
                lambda: list_nodes() == [NodeResources(1, 1), NodeResources(2), NodeResources(1)],
                HANG_S,
                "the late node",
            )
            assert run_on(cluster, late.ip) == late.ip
            cluster.kill_node(late)
            wait_until(lambda: len(list_nodes()) == 2, HANG_S, "the loss of a node")
    assert not folder.exists()
    assert not [pid for node in (*nodes, late) for pid in node.pids()]


def run_on(cluster: Cluster, ip: str) -> str:
    import ray

    assert cluster.address

    @ray.remote(num_cpus=0, resources={f"node:{ip}": 0.01})
    def where() -> str:
        return str(ray.util.get_node_ip_address())

    return str(ray.get(where.remote()))


@pytest.mark.ray
def test_who_has_no_token_is_told_what_to_set() -> None:
    join = "import sys; from lightwell.workers.ray.cluster import connect; connect(sys.argv[1])"
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    with ray_cluster() as cluster:
        done = subprocess.run(
            [sys.executable, "-c", join, cluster.address],
            check=False,
            env={**env, "RAY_NUM_REDIS_GET_RETRIES": "2"},
            capture_output=True,
            text=True,
        )
    assert "requires a token; set RAY_AUTH_MODE=token" in done.stderr
