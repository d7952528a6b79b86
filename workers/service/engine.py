"""Engine that reads training batches from a service, which makes each once for all attached jobs."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import PlanError
from ...pipeline.runtime.local_engine import LocalEngine
from ...pipeline.runtime.open_view import OpenView
from ...pipeline.sampler.position import view_fields
from ..ray.cluster import connect
from .feed import ServiceFeed
from .host import find_service
from .messages import ServedView

if TYPE_CHECKING:
    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View
    from ...pipeline.runtime.local_engine import LocalFeed

EPOCHS = ("first_epoch", "num_epochs")


def unique_name() -> str:
    """Return a unique consumer name."""
    return f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


@dataclass(frozen=True)
class ServiceEngine:
    """Reads the view that a service serves from the service, and other views in this process.

    A view that augments has to match the served one, except that it may cover fewer epochs. A view that does not, such as
    a validation split or a few keys, falls back to the local engine if the service serves another.
    """

    name: str
    """Name of the service."""
    address: str | None = "auto"
    """Address of the Ray cluster: ``host:port``, ``ray://host:port`` or ``auto``."""
    consumer: str = field(default_factory=unique_name)
    """Name of this process at the service. Of two processes with the same name the later one replaces the other."""
    local: LocalEngine = field(default_factory=LocalEngine)
    """Engine for views that the service does not serve."""

    def feed(
        self, plan: Plan, view: View, position: Mapping[str, Any] | None = None
    ) -> ServiceFeed | LocalFeed:
        """Open the batches of a view of a plan, from a position on if one is given.

        Raises:
            PlanError: there is no such service, it serves another plan or view, or the position is of another.
            SourceError: the index cannot be used or has no such split.
            RunError: there is no cluster at the address.
        """
        connect(self.address)
        service = find_service(self.name)
        served = service.describe()
        if not view.augment and _view_differences(view, served):
            return self.local.feed(plan, view, position)
        opened = OpenView.of(plan, view)
        self._check_same(opened, served)
        return ServiceFeed(service, served, opened, position, self.consumer)

    def check(self, plan: Plan, view: View) -> None:
        """Check that the service serves a view, even one that does not augment.

        Raises:
            PlanError: there is no such service, or it serves another plan or view.
        """
        connect(self.address)
        self._check_same(OpenView.of(plan, view), find_service(self.name).describe())

    def last_position(self) -> Mapping[str, Any] | None:
        """Return the last reported position of this consumer; None if it has never attached.

        A feed resumed from there starts with the batch that was being processed when its process was killed.
        """
        connect(self.address)
        return find_service(self.name).position_of(self.consumer)

    def _check_same(self, opened: OpenView, served: ServedView) -> None:
        differences = _plan_differences(opened, served) + _view_differences(opened.view, served)
        if differences:
            raise PlanError(
                f"service: expected the plan and the view that {self.name!r} serves, got others: {'; '.join(differences)}; "
                "make them equal, or start another service for this job"
            )


def _plan_differences(opened: OpenView, served: ServedView) -> list[str]:
    if opened.fingerprint == served.fingerprint:
        return []
    ours, theirs = opened.plan.dump(), served.plan.dump()
    differences = [
        f"plan.{name} is {ours[name]!r} here and {theirs[name]!r} there"
        for name in ours
        if name not in ("index", "device", "resources") and ours[name] != theirs[name]
    ]
    if opened.index.fingerprint() != served.index_fingerprint:
        differences.insert(
            0, f"plan.index has other content ({ours['index']!r} here, {theirs['index']!r} there)"
        )
    return differences or [
        f"the plan's fingerprint is {opened.fingerprint} here and {served.fingerprint} there"
    ]


def _view_differences(view: View, served: ServedView) -> list[str]:
    ours, theirs = view_fields(view), view_fields(served.view)
    differences = [
        f"view.{name} is {ours[name]!r} here and {theirs[name]!r} there"
        for name in ours
        if name not in EPOCHS and ours[name] != theirs[name]
    ]
    first, last = served.view.first_epoch, served.view.first_epoch + served.view.num_epochs
    if not first <= view.first_epoch <= view.first_epoch + view.num_epochs <= last:
        differences.append(
            f"view.num_epochs: epochs {view.first_epoch} to {view.first_epoch + view.num_epochs - 1} are read here, "
            f"{first} to {last - 1} are served"
        )
    if view.num_ranks != 1:
        differences.append(
            f"view.num_ranks is {view.num_ranks} here, but a service serves whole batches: leave ranks out"
        )
    return differences
