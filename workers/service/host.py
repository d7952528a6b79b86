"""Starts services on a cluster, finds them by their names and ends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import LightwellError, PlanError, RunError, nearest
from ...pipeline.jobs.job_file import ServiceName
from ...pipeline.runtime.open_view import OpenView
from ..ray.cluster import connect
from ..ray.stream import unwrap_ray_error
from .server import Server
from .sharing import SharingRules

if TYPE_CHECKING:
    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View
    from ..ray.engine import RayEngine
    from .messages import Served

NAMESPACE = "lightwell"
PREFIX = "lightwell:"


@dataclass(frozen=True)
class Service:
    """A service that runs on the cluster that this process is connected to."""

    name: str
    actor: Any
    """Its server."""

    def describe(self) -> Served:
        """Ask what it serves.

        Raises:
            LightwellError: why it cannot serve anything.
            RunError: it has ended.
        """
        found: Served | LightwellError = self.ask(self.actor.describe.remote())
        if isinstance(found, LightwellError):
            raise found
        return found

    def status(self) -> Mapping[str, Any]:
        """Say what was made and where everyone stands; see ``Server.status``.

        Raises:
            LightwellError: as ``describe`` raises.
        """
        self.describe()
        found: Mapping[str, Any] = self.ask(self.actor.status.remote())
        return {"name": self.name, **found}

    def position_of(self, consumer: str) -> Mapping[str, Any] | None:
        """Say where a consumer stood when it was last heard of, whether it lives or not; None for one never seen.

        The batch that it had at work then is given again to a feed that goes on from there.
        """
        consumers = self.status()["consumers"]
        return next((one["position"] for one in consumers if one["name"] == consumer), None)

    def cluster_address(self) -> str:
        """Return the address by which others join the cluster."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    def stop(self) -> None:
        """End it; consumers that still want batches get an error that says so."""
        import ray

        ray.kill(self.actor)

    def ask(self, answer: Any) -> Any:
        """Wait for an answer.

        Raises:
            RunError: the service has ended.
        """
        import ray

        try:
            return ray.get(answer)
        except ray.exceptions.ActorDiedError as error:
            raise RunError(
                f"service: {self.name!r} has ended; start it again with `lightwell serve`, and run this again to go on"
            ) from error
        except ray.exceptions.RayError as error:
            raise unwrap_ray_error(error) from error


def start_service(
    plan: Plan,
    view: View,
    name: str,
    engine: RayEngine,
    rules: SharingRules | None = None,
    *,
    detached: bool = False,
) -> Service:
    """Start a service and wait until it is open.

    Unless it is detached it ends with this process, or when what is returned is let go.

    Args:
        plan: what is served; the nodes see its index and its files at the same paths.
        view: the epochs that are served, of one rank.
        name: what jobs write behind ``service://``.
        engine: the cluster, and what makes the batches there.
        rules: the bounds of what is shared.
        detached: let it live on when this process ends.

    Raises:
        PlanError: plan, view or name cannot be right, the name is taken, or the cluster can never hold the makers.
        SourceError: the index cannot be used or has no such split.
        RunError: there is no cluster at the address.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ServiceName(name)
    if view.num_ranks != 1:
        raise PlanError(
            f"view.num_ranks: expected 1, as a service serves whole batches, got {view.num_ranks}; leave ranks out"
        )
    OpenView.of(plan, view)  # whatever is wrong with them is said here, before Ray is touched
    if detached and engine.address is None and not ray.is_initialized():
        raise PlanError(
            "address: expected that of a cluster for a service that lives on, got none: a cluster that is started here "
            "ends with this process; start one with `ray start --head` and give --address auto"
        )
    connect(engine.address)
    options = {"name": PREFIX + name, "namespace": NAMESPACE, "lifetime": "detached" if detached else None}
    # It starts where the index has been seen, and again elsewhere when that node is gone.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(Server).options(
        **options,
        scheduling_strategy=here,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
    )
    try:
        actor = remote.remote(plan, view, engine, rules or SharingRules())
    except ValueError as error:
        raise PlanError(
            f"name: expected one that no service on this cluster has, got {name!r}; choose another, or end that one with "
            f"`lightwell services stop {name}`"
        ) from error
    service = Service(name, actor)
    try:
        service.describe()
    except BaseException:
        service.stop()
        raise
    return service


def find_service(name: str) -> Service:
    """Find a service by its name on the cluster that this process is connected to.

    Raises:
        PlanError: there is none; says which there are.
    """
    import ray

    try:
        return Service(name, ray.get_actor(PREFIX + name, namespace=NAMESPACE))
    except ValueError as error:
        known = service_names()
        told = f"got {name!r}; {nearest(name, known)}" if known else f"got {name!r}, and none is running; "
        told += " " if told.endswith("?") else ""
        cure = "start it with `lightwell serve PLAN.yaml --name " + name + "`"
        listed = f"one of {known}" if known else "one that runs on this cluster"
        raise PlanError(f"service: expected {listed}, {told}{cure}") from error


def service_names() -> list[str]:
    """List the services of the cluster that this process is connected to."""
    from ray.util import list_named_actors

    found = list_named_actors(all_namespaces=True)
    names = [one["name"] for one in found if one["namespace"] == NAMESPACE]
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
