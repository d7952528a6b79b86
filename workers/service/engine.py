"""An engine whose training batches come from a service, each made once for all who attach to it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import PlanError
from ...pipeline.runtime.local_engine import LocalEngine
from ...pipeline.runtime.open_view import OpenView
from ...pipeline.sampler.position import identity_of
from ..ray.cluster import connect
from .feed import ServiceFeed
from .host import find_service
from .messages import Served

if TYPE_CHECKING:
    from ...pipeline.plan.plan import Plan
    from ...pipeline.plan.view import View
    from ...pipeline.runtime.local_engine import LocalFeed

EPOCHS = ("first_epoch", "num_epochs")


def fresh_name() -> str:
    """Make up a consumer's name that nobody else has."""
    return f"{os.uname().nodename}-{os.getpid()}-{uuid.uuid4().hex[:4]}"


@dataclass(frozen=True)
class ServiceEngine:
    """Reads what a service serves from there, and everything else in this process.

    A view that augments has to be one that the service serves, epochs of it included. One that does not, such as that of
    a validation split or of a few keys, is read by the local engine where the service serves another.
    """

    name: str
    """Of the service."""
    address: str | None = "auto"
    """Of the Ray cluster: ``host:port``, ``ray://host:port`` or ``auto``."""
    consumer: str = field(default_factory=fresh_name)
    """The name by which the service knows this process. Of two processes that have the same, the later one stays."""
    local: LocalEngine = field(default_factory=LocalEngine)
    """Reads the views that the service does not serve."""

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
        self._refuse_differences(opened, served)
        return ServiceFeed(service, served, opened, position, self.consumer)

    def check(self, plan: Plan, view: View) -> None:
        """Refuse what the service does not serve, views that do not augment too.

        Raises:
            PlanError: there is no such service, or it serves another plan or view.
        """
        connect(self.address)
        self._refuse_differences(OpenView.of(plan, view), find_service(self.name).describe())

    def left_at(self) -> Mapping[str, Any] | None:
        """Say where the consumer of this name stood when it was last heard of; None if it never was.

        A feed that goes on from there is given the batch again that was at work when its process was killed.
        """
        connect(self.address)
        return find_service(self.name).position_of(self.consumer)

    def _refuse_differences(self, opened: OpenView, served: Served) -> None:
        told = _plan_differences(opened, served) + _view_differences(opened.view, served)
        if told:
            raise PlanError(
                f"service: expected the plan and the view that {self.name!r} serves, got others: {'; '.join(told)}; make them "
                "the same, or start a service for this job's under another name"
            )


def _plan_differences(opened: OpenView, served: Served) -> list[str]:
    if opened.fingerprint == served.fingerprint:
        return []
    here, there = opened.plan.dump(), served.plan.dump()
    told = [
        f"plan.{name} is {here[name]!r} here and {there[name]!r} there"
        for name in here
        if name not in ("index", "device", "resources") and here[name] != there[name]
    ]
    if opened.index.fingerprint() != served.index_fingerprint:
        told.insert(0, f"plan.index has other content ({here['index']!r} here, {there['index']!r} there)")
    return told or [f"the plan's fingerprint is {opened.fingerprint} here and {served.fingerprint} there"]


def _view_differences(view: View, served: Served) -> list[str]:
    here, there = identity_of(view), identity_of(served.view)
    told = [
        f"view.{name} is {here[name]!r} here and {there[name]!r} there"
        for name in here
        if name not in EPOCHS and here[name] != there[name]
    ]
    first, last = served.view.first_epoch, served.view.first_epoch + served.view.num_epochs
    if not first <= view.first_epoch <= view.first_epoch + view.num_epochs <= last:
        told.append(
            f"view.num_epochs: epochs {view.first_epoch} to {view.first_epoch + view.num_epochs - 1} are read here, "
            f"{first} to {last - 1} are served there"
        )
    if view.num_ranks != 1:
        told.append(f"view.num_ranks is {view.num_ranks} here and 1 there: whole batches are served")
    return told
