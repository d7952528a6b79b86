"""Messages between a service and its consumers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...pipeline.errors import LightwellError
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View

if TYPE_CHECKING:
    import ray

    from ..ray.blocks import Block

HEARTBEATS_PER_TIMEOUT = 4
"""Heartbeats that a consumer sends in the time after which it counts as dead."""


@dataclass(frozen=True)
class ServedView:
    """Plan and view of a service."""

    plan: Plan
    view: View
    fingerprint: str
    """Of the plan with its index."""
    index_fingerprint: str
    num_steps: int
    """Batches per epoch."""
    heartbeat_timeout_s: float


@dataclass(frozen=True)
class Heartbeat:
    """Identity and position of a consumer; sent with every request and periodically."""

    name: str
    session: str
    number: int
    """Number of the batch that it is processing, as counted by the service."""
    position: Mapping[str, Any]
    """The same as reported by its own feed."""


@dataclass(frozen=True)
class BatchReply:
    """Reply to a request for a batch."""

    block: tuple[ray.ObjectRef[Block], ...] = ()
    """One reference to the batch; empty if there is an error, or if another process has taken the consumer's name."""
    version: str = ""
    """Distinguishes the batch from others of the same number, made earlier or later."""
    error: LightwellError | None = None
    """Why the batch could not be made."""
