"""What a service and its consumers say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ...pipeline.errors import LightwellError
from ...pipeline.plan.plan import Plan
from ...pipeline.plan.view import View

if TYPE_CHECKING:
    import ray

BEATS = 4
"""Signs of life that a consumer gives in the time after which it would count as dead."""


@dataclass(frozen=True)
class Served:
    """What a service makes the batches of."""

    plan: Plan
    view: View
    fingerprint: str
    """Of the plan with its index."""
    index_fingerprint: str
    num_steps: int
    """Batches of an epoch."""
    silent_s: float


@dataclass(frozen=True)
class Stand:
    """Who speaks, and where it stands."""

    name: str
    session: str
    number: int
    """Of the batch that it has not come back from, as the service counts them."""
    position: Mapping[str, Any]
    """The same as its own feed says it."""


@dataclass(frozen=True)
class Handed:
    """An answer to a consumer that asked for a batch."""

    block: tuple[ray.ObjectRef[pa.Table], ...] = ()
    """One reference to the batch. It is empty where there is an error, or where another process has the name."""
    version: str = ""
    """Tells the batch from one of the same number that was made before or after."""
    error: LightwellError | None = None
    """Why it could not be made."""
