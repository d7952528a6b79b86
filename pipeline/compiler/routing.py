"""Where each transform of a policy runs: in decoding, in DALI, in OpenCV or in Albumentations, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..policy.registry import is_composition
from ..transform.dali.lowering import Device
from ..transform.dali.table import unsupported_reason
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, needs_pixels_reason
from ..transform.params import leaf_transforms

Backend = Literal["opencv", "dali"]
"""What does to pixels what was drawn: OpenCV through Albumentations' own functions, or a DALI graph."""

ORDER_PRESERVING = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "OneOrOther"})
"""Compositions that run what they choose in the order in which it is written, each at most once."""


RunsIn = Literal["dali", "opencv", "albumentations"]


@dataclass(frozen=True, slots=True)
class Route:
    """Where one outermost transform of a policy runs."""

    name: str
    runs_in: RunsIn
    reason: str
    """Why nowhere faster; empty where there is nothing to explain."""
    fused_with_decode: bool = False
    """Decoding does its crop, or part of its shrinking."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Where all transforms of a policy run."""

    routes: tuple[Route, ...]
    num_sampled: int
    """Leading transforms that are drawn before there are pixels."""
    num_lowered: int
    """Leading transforms that run in DALI; not more than are drawn."""


def find_routes(transforms: Sequence[Any], *, backend: Backend, device: Device, approximate: bool) -> Routes:
    """Decide for built Albumentations transforms, in order, where each runs.

    The drawn beginning ends with the first transform that needs pixels to decide, the lowered beginning with the
    first that DALI cannot take: what follows stays outside too, which keeps the order of steps.
    """
    num_sampled, not_sampled_reason = _count_leading(transforms, needs_pixels_reason)
    num_lowered, not_lowered_reason = 0, ""
    if backend == "dali":
        num_lowered, not_lowered_reason = _count_leading(
            transforms[:num_sampled],
            lambda transform: _not_in_graph_reason(transform, device=device, approximate=approximate),
        )
    num_fused = _num_fused(transforms[:num_sampled])
    routes = []
    for number, transform in enumerate(transforms):
        name = type(transform).__name__
        helps = number < num_fused and (backend == "opencv" or name not in RESIZES)
        if number >= num_sampled:
            routes.append(
                Route(name, "albumentations", _reason_at(not_sampled_reason, transforms, num_sampled, number))
            )
        elif number < num_lowered:
            routes.append(Route(name, "dali", "", helps))
        else:
            reason = _reason_at(not_lowered_reason, transforms, num_lowered, number)
            routes.append(Route(name, "opencv", reason, helps))
    return Routes(tuple(routes), num_sampled, num_lowered)


def _count_leading(transforms: Sequence[Any], get_reason: Callable[[Any], str]) -> tuple[int, str]:
    """Count the leading transforms against which there is nothing, and say what is against the next one."""
    for number, transform in enumerate(transforms):
        reason = get_reason(transform)
        if reason:
            return number, reason
    return len(transforms), ""


def _reason_at(reason: str, transforms: Sequence[Any], first: int, number: int) -> str:
    """Give a reason with the transform that it is about; those behind it only stay in line."""
    if not reason or number == first:
        return reason
    return f"behind {type(transforms[first]).__name__}"


def _num_fused(transforms: Sequence[Any]) -> int:
    """Count the leading transforms that decoding does, wholly or in part: crops, and at most one resize at the end."""
    for number, transform in enumerate(transforms):
        name = type(transform).__name__
        if transform.p < 1 or name not in CROPS | CROPS_AND_RESIZES | RESIZES:
            return number
        if name not in CROPS:
            return number + 1
    return len(transforms)


def _not_in_graph_reason(transform: Any, *, device: Device, approximate: bool) -> str:
    if is_composition(transform):
        name = type(transform).__name__
        if name not in ORDER_PRESERVING or getattr(transform, "replace", False):
            return f"{name} changes the order of its transforms or repeats them; a graph has one order"
    reasons = (
        unsupported_reason(leaf, device=device, approximate=approximate)
        for leaf in leaf_transforms([transform])
    )
    return next(filter(None, reasons), "")
