"""Starts, finds and stops services on a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import LightwellError, PlanError, RunError, did_you_mean
from ...pipeline.jobs.job_file import ServiceName
from ...pipeline.runtime.open_view import OpenView
from ..ray.cluster import connect
from ..ray.ray_errors import unwrap_ray_error
from .server import Server
from .sharing import SharingRules

if TYPE_CHECKING:
    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View
    from ..ray.engine import RayEngine
    from .messages import ServedView

NAMESPACE = "lightwell"
PREFIX = "lightwell:"


@dataclass(frozen=True)
class Service:
    """Handle of a service on the cluster that this process is connected to."""

    name: str
    actor: Any
    """Handle of its ``Server``."""

    def describe(self) -> ServedView:
        """Return plan and view of the service.

        Raises:
            LightwellError: why it cannot serve them.
            RunError: the service has ended.
        """
        found: ServedView | LightwellError = self.call(self.actor.describe.remote())
        if isinstance(found, LightwellError):
            raise found
        return found

    def status(self) -> Mapping[str, Any]:
        """Return counters and the state of every consumer; see ``Server.status``.

        Raises:
            LightwellError: as ``describe`` raises.
        """
        self.describe()
        found: Mapping[str, Any] = self.call(self.actor.status.remote())
        return {"name": self.name, **found}

    def position_of(self, consumer: str) -> Mapping[str, Any] | None:
        """Return the last reported position of a consumer, alive or not; None for an unknown one.

        A feed resumed from there starts with the batch that the consumer was processing.
        """
        consumers = self.status()["consumers"]
        return next((one["position"] for one in consumers if one["name"] == consumer), None)

    def cluster_address(self) -> str:
        """Return the address for connecting to the cluster."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    def stop(self) -> None:
        """Stop the service; consumers that request further batches get an error."""
        import ray

        ray.kill(self.actor)

    def call(self, reference: Any) -> Any:
        """Wait for the result of a remote call.

        Raises:
            RunError: the service has ended.
        """
        import ray

        try:
            return ray.get(reference)
        except ray.exceptions.ActorDiedError as error:
            raise RunError(
                f"service: {self.name!r} has ended; start it again with `lightwell serve`, and run this again to resume"
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
    """Start a service and wait until it has opened its view.

    Unless detached, the service ends with this process, or when the returned handle is garbage-collected.

    Args:
        plan: the plan; all nodes see its index and its files at the same paths.
        view: the epochs that are served, of one rank.
        name: the name that jobs write after ``service://``.
        engine: the cluster, and the workers that make the batches.
        rules: limits of the shared stream.
        detached: keep the service running when this process ends.

    Raises:
        PlanError: plan, view or name is invalid, the name is taken, or the cluster can never hold the workers.
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
    OpenView.of(plan, view)  # errors are raised here, before Ray is started
    if detached and engine.address is None and not ray.is_initialized():
        raise PlanError(
            "address: expected a running cluster for a detached service, got none: a cluster started here ends with this "
            "process; start one with `ray start --head` and pass --address auto"
        )
    connect(engine.address)
    options = {"name": PREFIX + name, "namespace": NAMESPACE, "lifetime": "detached" if detached else None}
    # It starts on this node, which sees the index; after the loss of this node Ray restarts it elsewhere.
    affinity = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    remote = ray.remote(Server).options(
        **options,
        scheduling_strategy=affinity,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=1000,
    )
    try:
        actor = remote.remote(plan, view, engine, rules or SharingRules())
    except ValueError as error:
        raise PlanError(
            f"name: expected a name that is not in use on this cluster, got {name!r}; choose another, or stop that service "
            f"with `lightwell services stop {name}`"
        ) from error
    service = Service(name, actor)
    try:
        service.describe()
    except BaseException:
        service.stop()
        raise
    return service


def find_service(name: str) -> Service:
    """Return the handle of a service on the cluster that this process is connected to.

    Raises:
        PlanError: there is no service of this name; the message lists those there are.
    """
    import ray

    try:
        return Service(name, ray.get_actor(PREFIX + name, namespace=NAMESPACE))
    except ValueError as error:
        known = service_names()
        got = (
            f"got {name!r}; {did_you_mean(name, known)}" if known else f"got {name!r}, and none is running; "
        )
        got += " " if got.endswith("?") else ""
        cure = "start it with `lightwell serve PLAN.yaml --name " + name + "`"
        listed = f"one of {known}" if known else "one that runs on this cluster"
        raise PlanError(f"service: expected {listed}, {got}{cure}") from error


def service_names() -> list[str]:
    """Return the names of the services on the cluster that this process is connected to."""
    from ray.util import list_named_actors

    found = list_named_actors(all_namespaces=True)
    names = [one["name"] for one in found if one["namespace"] == NAMESPACE]
    return sorted(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))
