"""A Ray cluster to work on: found or started, and asked what it can hold before anything is sent there."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...pipeline.errors import PlanError, RunError
from ...pipeline.plan.resources import WorkerResources, check_resources, format_resources

CONNECT_TIMEOUT_S = 5.0
"""How long a cluster may take to accept a connection."""
CLIENT = "ray://"
BACK_OFF = ("RAY_task_actor_unavailable_retry_delay_base_ms", "4000")
"""How long Ray waits before it asks an actor again that gives no answer; doubled each time. Its own default is spent in
seconds, long before Ray knows that a node is dead, which takes a quarter of a minute."""
SLACK = 1e-6
"""Ray counts resources in ten-thousandths; sums of fractions are compared with some slack."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker holds while it lives."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A fraction below one lets workers share a GPU."""

    def __post_init__(self) -> None:
        check_resources(self.cpus, self.gpus)

    def __str__(self) -> str:
        return format_resources(self.cpus, self.gpus)

    def with_defaults(self, plans: WorkerResources | None) -> Resources:  # noqa: ARG002
        """Stay: who says all of it leaves nothing to a plan."""
        return self


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """What one worker is asked to hold; what is None is left to the plan."""

    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_resources(1 if self.cpus is None else self.cpus, 1 if self.gpus is None else self.gpus)

    def with_defaults(self, plans: WorkerResources | None) -> Resources:
        """Fill in what a plan says, and else one CPU and no GPU.

        Raises:
            PlanError: both together cannot be.
        """
        found = plans or WorkerResources()
        return Resources(
            found.cpus if self.cpus is None else self.cpus, found.gpus if self.gpus is None else self.gpus
        )


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """So many workers of one kind."""

    num_workers: int
    per_worker: Resources


@dataclass(frozen=True, slots=True)
class NodeResources:
    """What a node of the cluster has, in use or not."""

    cpus: float
    gpus: float = 0.0

    def max_workers(self, per_worker: Resources) -> int:
        """Count the workers of a kind that it could hold were it empty."""
        return int(min(_num_fitting(self.cpus, per_worker.cpus), _num_fitting(self.gpus, per_worker.gpus)))

    def subtract(self, per_worker: Resources, number: int) -> NodeResources:
        """Take some workers' part away."""
        return NodeResources(self.cpus - number * per_worker.cpus, self.gpus - number * per_worker.gpus)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


def connect(address: str | None = None) -> bool:
    """Join a Ray cluster, or start one on this machine where no address is given.

    A process that is connected already stays so. A cluster that is started here has no dashboard, listens on the loopback
    interface only and ends with the process. Ray guards it by a token.

    Args:
        address: ``host:port``, ``ray://host:port`` or ``auto``, which looks on this machine and at ``RAY_ADDRESS``.

    Returns:
        Whether the connection was made here, for who wants to end it.

    Raises:
        PlanError: the address cannot be one.
        RunError: there is no cluster, it has another version of Ray or Python, or it wants a token.
    """
    os.environ.setdefault(*BACK_OFF)  # Ray reads it once
    import ray

    if ray.is_initialized():
        _check_same(address, ray.get_runtime_context().gcs_address)
        return False
    if address is None:
        with _on_loopback() as ip:
            ray.init(
                include_dashboard=False, log_to_driver=False, configure_logging=False, _node_ip_address=ip
            )
        return True
    if address != "auto":
        _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise RunError(_connection_error(address, error)) from error
    return True


@contextmanager
def _on_loopback() -> Iterator[str]:
    """Let Ray start its processes on 127.0.0.1; yields that address.

    On Linux Ray replaces a loopback address by the machine's own, so that other nodes can join, and then binds to all
    interfaces. The switch by which it starts single-node clusters on other systems keeps it on loopback. Ray reads it from
    the environment when it is imported, its processes when they start.
    """
    from ray._private import ray_constants

    variable: str = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, may_grow = os.environ.get(variable), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[variable], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield "127.0.0.1"
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = may_grow
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be connected to a cluster for a while; see ``connect``. Who was connected before stays so."""
    import ray

    made = connect(address)
    try:
        yield
    finally:
        if made:
            ray.shutdown()


def list_nodes() -> list[NodeResources]:
    """List what the cluster's nodes have, those included that its autoscaler may add, the largest first."""
    from ray._private.state import state  # there is no public way to ask what may be added

    found = list(_alive().values())
    config = state.get_cluster_config()  # None where there is no autoscaler
    for group in () if config is None else config.node_group_configs:
        room = NodeResources(group.resources.get("CPU", 0.0), group.resources.get("GPU", 0.0))
        fresh = max(0, group.max_count - found.count(room))
        found += [room] * min(fresh, _MAX_AUTOSCALED_NODES)
    return sorted(found, key=lambda room: (room.gpus, room.cpus), reverse=True)


def find_node(per_worker: Resources) -> str | None:
    """Return the id of a node that lives and could hold a worker were it empty; None where there is none now."""
    return next((node for node, room in _alive().items() if room.max_workers(per_worker)), None)


def _alive() -> dict[str, NodeResources]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        node["NodeID"]: NodeResources(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in nodes
        if node["Alive"]
    }


_MAX_AUTOSCALED_NODES = 10_000
"""An autoscaler without a limit says so by a huge number."""


def check_capacity(groups: Sequence[WorkerGroup], nodes: Sequence[NodeResources]) -> None:
    """Refuse workers that the cluster can never hold, however long they wait.

    Raises:
        PlanError: no node can hold one of them, or all nodes together not so many.
    """
    for group in groups:
        if not any(node.max_workers(group.per_worker) for node in nodes):
            largest = max(
                nodes, key=lambda node: (node.gpus if group.per_worker.gpus else 0.0, node.cpus), default=None
            )
            raise PlanError(
                f"ray: expected {group.per_worker} per worker, got a cluster whose largest node has {largest or 'nothing'}; "
                "ask for less with --cpus-per-worker and --gpus-per-worker, or add such a node"
            )
    left = list(nodes)
    for group in sorted(
        groups, key=lambda group: (group.per_worker.gpus, group.per_worker.cpus), reverse=True
    ):
        waiting = group.num_workers
        for number, node in enumerate(left):
            placed = min(waiting, node.max_workers(group.per_worker))
            left[number] = node.subtract(group.per_worker, placed)
            waiting -= placed
        if waiting:
            wanted = " and ".join(f"{one.num_workers} workers of {one.per_worker}" for one in groups)
            raise PlanError(
                f"ray: expected room for {wanted}, got a cluster of {describe_nodes(nodes)}, where {waiting} of them never fit; "
                "ask for fewer with --workers or --job-workers, for less with --cpus-per-worker, or add nodes"
            )


def _num_fitting(has: float, wants: float) -> float:
    return math.inf if wants == 0 else (has + SLACK) // wants


def describe_nodes(nodes: Sequence[NodeResources]) -> str:
    """Say how many nodes of which kind there are."""
    kinds: dict[NodeResources, int] = {}
    for node in nodes:
        kinds[node] = kinds.get(node, 0) + 1
    return ", ".join(f"{number} node{'s' * (number > 1)} with {kind}" for kind, number in kinds.items())


def _check_reachable(address: str) -> None:
    """Knock at the door: Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not host or not port.isdigit():
        raise PlanError(
            f"address: expected host:port, ray://host:port or auto, got {address!r}; `ray status` on the head node tells it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"address: expected a Ray cluster at {address!r}, got no answer ({error}); start one with "
            "`ray start --head`, or leave --address out to use this machine alone"
        ) from error


def _check_same(wanted: str | None, joined: str) -> None:
    """Refuse an address other than that of the cluster that this process belongs to already."""
    if (
        wanted is None
        or wanted == "auto"
        or wanted.startswith(CLIENT)
        or _endpoints(wanted) & _endpoints(joined)
    ):
        return
    raise PlanError(
        f"address: expected the cluster at {wanted!r}, got a process that is connected to {joined!r}; "
        "call ray.shutdown() first, or leave the address out"
    )


def _endpoints(address: str) -> set[tuple[str, str]]:
    host, _, port = address.rpartition(":")
    try:
        return {(str(found[4][0]), port) for found in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return {(host, port)}


def _connection_error(address: str, error: BaseException) -> str:
    causes: list[Any] = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    told = " ".join(str(causes[-1]).split())
    if "InvalidAuthToken" in str(causes) or "uthentication" in told:
        return (
            f"address: the cluster at {address!r} wants a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's own"
        )
    if address == "auto":
        return (
            f"address: expected a Ray cluster that runs here or at RAY_ADDRESS, got none ({told}); start one with "
            "`ray start --head`, or leave --address out to use this machine alone"
        )
    return f"address: expected to join the Ray cluster at {address!r}, got: {told}"
