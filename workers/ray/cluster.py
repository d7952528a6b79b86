"""Connects to a Ray cluster or starts one, and checks its capacity for workers."""

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
"""Timeout for connecting to a cluster."""
CLIENT = "ray://"
SLACK = 1e-6
"""Tolerance for sums of fractional resources; Ray counts in steps of 1e-4."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources reserved by one worker."""

    cpus: float = 1.0
    gpus: float = 0.0
    """A fraction lets workers share a GPU."""

    def __post_init__(self) -> None:
        check_resources(self.cpus, self.gpus)

    def __str__(self) -> str:
        return format_resources(self.cpus, self.gpus)

    def with_defaults(self, plans: WorkerResources | None) -> Resources:  # noqa: ARG002
        """Return self: complete resources need no defaults from a plan."""
        return self


@dataclass(frozen=True, slots=True)
class ResourceRequest:
    """Requested resources of one worker; None leaves a value to the plan."""

    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_resources(1 if self.cpus is None else self.cpus, 1 if self.gpus is None else self.gpus)

    def with_defaults(self, plans: WorkerResources | None) -> Resources:
        """Fill in missing values from a plan; otherwise one CPU and no GPU.

        Raises:
            PlanError: the combination is invalid.
        """
        found = plans or WorkerResources()
        return Resources(
            found.cpus if self.cpus is None else self.cpus, found.gpus if self.gpus is None else self.gpus
        )


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """A number of workers with the same resources."""

    num_workers: int
    per_worker: Resources


@dataclass(frozen=True, slots=True)
class NodeResources:
    """Total resources of a node, in use or not."""

    cpus: float
    gpus: float = 0.0

    def max_workers(self, per_worker: Resources) -> int:
        """Return how many workers fit on the empty node."""
        return int(min(_num_fitting(self.cpus, per_worker.cpus), _num_fitting(self.gpus, per_worker.gpus)))

    def subtract(self, per_worker: Resources, number: int) -> NodeResources:
        """Return what remains after placing some workers."""
        return NodeResources(self.cpus - number * per_worker.cpus, self.gpus - number * per_worker.gpus)

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


def connect(address: str | None = None) -> bool:
    """Connect to a Ray cluster, or start one on this machine if no address is given.

    An existing connection is kept. A cluster started here has no dashboard, listens only on the loopback interface and
    ends with the process. Ray protects it with a token.

    Args:
        address: ``host:port``, ``ray://host:port`` or ``auto``, which tries this machine and ``RAY_ADDRESS``.

    Returns:
        Whether a new connection was made, for callers that close it.

    Raises:
        PlanError: the address is invalid.
        RunError: there is no cluster, it runs another version of Ray or Python, or it requires a token.
    """
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
        if _is_loopback_only(address):
            with _on_loopback() as ip:
                ray.init(address=address, log_to_driver=False, configure_logging=False, _node_ip_address=ip)
        else:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise RunError(_connection_error(address, error)) from error
    return True


def _is_loopback_only(address: str) -> bool:
    """Return whether a cluster listens on 127.0.0.1 alone, as one that ``connect`` has started does.

    Ray takes 127.0.0.1 for the machine's own address, where such a cluster cannot be reached.
    """
    import ray

    host, _, port = address.rpartition(":")
    if host not in ("127.0.0.1", "localhost"):
        return False
    try:
        own = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        socket.create_connection((own, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError:
        return True
    return False


@contextmanager
def _on_loopback() -> Iterator[str]:
    """Make Ray start its processes on 127.0.0.1; yields that address.

    On Linux Ray replaces a loopback address with the machine's own, so that other nodes can join, and binds to all
    interfaces. The variable for single-node clusters on other systems prevents this. Ray reads it at import, its processes
    read it at their start.
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
    """Connect to a cluster for the duration of the context; see ``connect``. An earlier connection is kept."""
    import ray

    is_new = connect(address)
    try:
        yield
    finally:
        if is_new:
            ray.shutdown()


def list_nodes() -> list[NodeResources]:
    """Return the cluster's nodes, including those that its autoscaler may add, largest first."""
    from ray._private.state import state  # Ray has no public API for the autoscaler's limits

    found = list(_alive().values())
    config = state.get_cluster_config()  # None without an autoscaler
    for group in () if config is None else config.node_group_configs:
        node = NodeResources(group.resources.get("CPU", 0.0), group.resources.get("GPU", 0.0))
        fresh = max(0, group.max_count - found.count(node))
        found += [node] * min(fresh, _MAX_AUTOSCALED_NODES)
    return sorted(found, key=lambda node: (node.gpus, node.cpus), reverse=True)


def max_workers(per_worker: Resources, others: Sequence[WorkerGroup], nodes: Sequence[NodeResources]) -> int:
    """Return how many workers fit on a cluster beside others."""
    left = list(nodes)
    for group in others:
        waiting = group.num_workers
        for number, node in reversed(list(enumerate(left))) if not group.per_worker.gpus else enumerate(left):
            placed = min(waiting, node.max_workers(group.per_worker))
            left[number] = node.subtract(group.per_worker, placed)
            waiting -= placed
    return sum(node.max_workers(per_worker) for node in left)


def store_bytes() -> int:
    """Return the size of all object stores of the cluster."""
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(total["object_store_memory"])


def _alive() -> dict[str, NodeResources]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        node["NodeID"]: NodeResources(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in nodes
        if node["Alive"]
    }


_MAX_AUTOSCALED_NODES = 10_000
"""Limit for autoscalers whose own limit is a huge number."""


def check_capacity(groups: Sequence[WorkerGroup], nodes: Sequence[NodeResources]) -> None:
    """Check that the cluster can ever hold some groups of workers.

    Raises:
        PlanError: a worker fits on no node, or not all workers fit.
    """
    for group in groups:
        if not any(node.max_workers(group.per_worker) for node in nodes):
            largest = max(
                nodes, key=lambda node: (node.gpus if group.per_worker.gpus else 0.0, node.cpus), default=None
            )
            raise PlanError(
                f"ray: expected {group.per_worker} per worker, got a cluster whose largest node has {largest or 'nothing'}; "
                "lower --cpus-per-worker or --gpus-per-worker, or add such a node"
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
            requested = " and ".join(f"{one.num_workers} workers of {one.per_worker}" for one in groups)
            raise PlanError(
                f"ray: expected room for {requested}, got a cluster of {describe_nodes(nodes)}, where {waiting} of them never fit; "
                "ask for fewer with --workers or --job-workers, for less with --cpus-per-worker, or add nodes"
            )


def _num_fitting(available: float, required: float) -> float:
    return math.inf if required == 0 else (available + SLACK) // required


def describe_nodes(nodes: Sequence[NodeResources]) -> str:
    """Format the number of nodes of each kind."""
    kinds: dict[NodeResources, int] = {}
    for node in nodes:
        kinds[node] = kinds.get(node, 0) + 1
    return ", ".join(f"{number} node{'s' * (number > 1)} with {kind}" for kind, number in kinds.items())


def _check_reachable(address: str) -> None:
    """Check that the address accepts connections; Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not host or not port.isdigit():
        raise PlanError(
            f"address: expected host:port, ray://host:port or auto, got {address!r}; `ray status` on the head node shows it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"address: expected a Ray cluster at {address!r}, got no answer ({error}); start one with "
            "`ray start --head`, or leave --address out to use only this machine"
        ) from error


def _check_same(address: str | None, joined: str) -> None:
    """Check that an address is that of the cluster that this process is already connected to."""
    if (
        address is None
        or address == "auto"
        or address.startswith(CLIENT)
        or _endpoints(address) & _endpoints(joined)
    ):
        return
    raise PlanError(
        f"address: expected the cluster at {address!r}, got a process that is connected to {joined!r}; "
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
    reason = " ".join(str(causes[-1]).split())
    if "InvalidAuthToken" in str(causes) or "uthentication" in reason:
        return (
            f"address: the cluster at {address!r} requires a token; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
            "RAY_AUTH_TOKEN_PATH to the cluster's own"
        )
    if address == "auto":
        return (
            f"address: expected a Ray cluster on this machine or at RAY_ADDRESS, got none ({reason}); start one with "
            "`ray start --head`, or leave --address out to use only this machine"
        )
    return f"address: expected to join the Ray cluster at {address!r}, got: {reason}"
