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
from ...pipeline.plan.resources import WorkerResources, check_resources, say_resources

ANSWER_S = 5.0
"""How long a cluster may take to accept a connection."""
CLIENT = "ray://"
BACK_OFF = ("RAY_task_actor_unavailable_retry_delay_base_ms", "4000")
"""How long Ray waits before it asks an actor again that gives no answer; doubled each time. Its own default is spent in
seconds, long before Ray knows that a node is dead, which takes a quarter of a minute."""
WHOLE = 1e-6
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
        return say_resources(self.cpus, self.gpus)

    def over(self, plans: WorkerResources | None) -> Resources:  # noqa: ARG002
        """Stay: who says all of it leaves nothing to a plan."""
        return self


@dataclass(frozen=True, slots=True)
class Asked:
    """What one worker is asked to hold; what is None is left to the plan."""

    cpus: float | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        check_resources(1 if self.cpus is None else self.cpus, 1 if self.gpus is None else self.gpus)

    def over(self, plans: WorkerResources | None) -> Resources:
        """Fill in what a plan says, and else one CPU and no GPU.

        Raises:
            PlanError: both together cannot be.
        """
        found = plans or WorkerResources()
        return Resources(
            found.cpus if self.cpus is None else self.cpus, found.gpus if self.gpus is None else self.gpus
        )


@dataclass(frozen=True, slots=True)
class Crew:
    """So many workers of one kind."""

    num_workers: int
    each: Resources


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What a node of the cluster has, in use or not."""

    cpus: float
    gpus: float = 0.0

    def most(self, each: Resources) -> int:
        """Count the workers of a kind that it could hold were it empty."""
        return int(min(_times(self.cpus, each.cpus), _times(self.gpus, each.gpus)))

    def without(self, each: Resources, number: int) -> NodeRoom:
        """Take some workers' part away."""
        return NodeRoom(self.cpus - number * each.cpus, self.gpus - number * each.gpus)

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
        _check_answers(address)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, RuntimeError, ray.exceptions.RayError) as error:
        raise RunError(_why_not(address, error)) from error
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


def rooms() -> list[NodeRoom]:
    """List what the cluster's nodes have, those included that its autoscaler may add, the largest first."""
    from ray._private.state import state  # there is no public way to ask what may be added

    found = list(_alive().values())
    config = state.get_cluster_config()  # None where there is no autoscaler
    for group in () if config is None else config.node_group_configs:
        room = NodeRoom(group.resources.get("CPU", 0.0), group.resources.get("GPU", 0.0))
        fresh = max(0, group.max_count - found.count(room))
        found += [room] * min(fresh, _AT_MOST_ADDED)
    return sorted(found, key=lambda room: (room.gpus, room.cpus), reverse=True)


def node_with(each: Resources) -> str | None:
    """Return the id of a node that lives and could hold a worker were it empty; None where there is none now."""
    return next((node for node, room in _alive().items() if room.most(each)), None)


def _alive() -> dict[str, NodeRoom]:
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {
        node["NodeID"]: NodeRoom(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in nodes
        if node["Alive"]
    }


_AT_MOST_ADDED = 10_000
"""An autoscaler without a limit says so by a huge number."""


def check_room(crews: Sequence[Crew], nodes: Sequence[NodeRoom]) -> None:
    """Refuse workers that the cluster can never hold, however long they wait.

    Raises:
        PlanError: no node can hold one of them, or all nodes together not so many.
    """
    for crew in crews:
        if not any(node.most(crew.each) for node in nodes):
            largest = max(
                nodes, key=lambda node: (node.gpus if crew.each.gpus else 0.0, node.cpus), default=None
            )
            raise PlanError(
                f"ray: expected {crew.each} per worker, got a cluster whose largest node has {largest or 'nothing'}; "
                "ask for less with --cpus-per-worker and --gpus-per-worker, or add such a node"
            )
    left = list(nodes)
    for crew in sorted(crews, key=lambda crew: (crew.each.gpus, crew.each.cpus), reverse=True):
        waiting = crew.num_workers
        for number, node in enumerate(left):
            placed = min(waiting, node.most(crew.each))
            left[number] = node.without(crew.each, placed)
            waiting -= placed
        if waiting:
            wanted = " and ".join(f"{one.num_workers} workers of {one.each}" for one in crews)
            raise PlanError(
                f"ray: expected room for {wanted}, got a cluster of {told_of(nodes)}, where {waiting} of them never fit; "
                "ask for fewer with --workers or --job-workers, for less with --cpus-per-worker, or add nodes"
            )


def _times(has: float, wants: float) -> float:
    return math.inf if wants == 0 else (has + WHOLE) // wants


def told_of(nodes: Sequence[NodeRoom]) -> str:
    """Say how many nodes of which kind there are."""
    kinds: dict[NodeRoom, int] = {}
    for node in nodes:
        kinds[node] = kinds.get(node, 0) + 1
    return ", ".join(f"{number} node{'s' * (number > 1)} with {kind}" for kind, number in kinds.items())


def _check_answers(address: str) -> None:
    """Knock at the door: Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix(CLIENT).rpartition(":")
    if not colon or not host or not port.isdigit():
        raise PlanError(
            f"address: expected host:port, ray://host:port or auto, got {address!r}; `ray status` on the head node tells it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(
            f"address: expected a Ray cluster at {address!r}, got no answer ({error}); start one with "
            "`ray start --head`, or leave --address out to use this machine alone"
        ) from error


def _check_same(wanted: str | None, joined: str) -> None:
    """Refuse an address other than that of the cluster that this process belongs to already."""
    if wanted is None or wanted == "auto" or wanted.startswith(CLIENT) or _places(wanted) & _places(joined):
        return
    raise PlanError(
        f"address: expected the cluster at {wanted!r}, got a process that is connected to {joined!r}; "
        "call ray.shutdown() first, or leave the address out"
    )


def _places(address: str) -> set[tuple[str, str]]:
    host, _, port = address.rpartition(":")
    try:
        return {(str(found[4][0]), port) for found in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError:
        return {(host, port)}


def _why_not(address: str, error: BaseException) -> str:
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
