"""Routing: decides where each transform of a policy runs: in decoding, DALI, OpenCV or Albumentations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..policy.registry import is_composition
from ..transform.dali.lowering import MAX_GRAPH_DEPTH, Device
from ..transform.dali.op_registry import depth_of, unsupported_reason
from ..transform.output_shapes import CROPS, CROPS_AND_RESIZES, RESIZES, needs_pixels_reason
from ..transform.params import leaf_transforms

Backend = Literal["opencv", "dali"]
"""Backend that applies transforms to pixels: OpenCV through Albumentations' own functions, or a DALI graph."""

ORDER_PRESERVING = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "OneOrOther"})
"""Compositions that run the selected transforms in written order, each at most once."""


RunsIn = Literal["dali", "opencv", "albumentations"]


@dataclass(frozen=True, slots=True)
class Route:
    """Route of one outermost transform of a policy."""

    name: str
    runs_in: RunsIn
    reason: str
    """Why it does not run on a faster path; empty if it does."""
    fused_with_decode: bool = False
    """Whether decoding performs its crop or part of its shrinking."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes of all transforms of a policy."""

    routes: tuple[Route, ...]
    num_sampled: int
    """Leading transforms whose parameters are sampled before decoding."""
    num_lowered: int
    """Leading transforms that run in DALI; at most ``num_sampled``."""


def find_routes(transforms: Sequence[Any], *, backend: Backend, device: Device, approximate: bool) -> Routes:
    """Decide where each of some built Albumentations transforms runs.

    Early sampling ends before the first transform whose parameters depend on pixels, DALI before the first that it does
    not support or that its graph has no room for: later transforms are excluded too, which keeps the order.
    """
    num_sampled, not_sampled_reason = _count_leading(transforms, needs_pixels_reason)
    num_lowered, not_lowered_reason = 0, ""
    if backend == "dali":
        num_lowered, not_lowered_reason = _count_leading(
            transforms[:num_sampled],
            lambda transform: _not_in_graph_reason(transform, device=device, approximate=approximate),
        )
        num_fitting = _count_fitting(transforms[:num_lowered])
        if num_fitting < num_lowered:
            num_lowered = num_fitting
            not_lowered_reason = f"a DALI graph has at most {MAX_GRAPH_DEPTH} operators in sequence"
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
    """Count the leading transforms without a reason against them, and return the reason against the next one."""
    for number, transform in enumerate(transforms):
        reason = get_reason(transform)
        if reason:
            return number, reason
    return len(transforms), ""


def _count_fitting(transforms: Sequence[Any]) -> int:
    """Count the leading lowered transforms that fit into one graph."""
    depth = 0
    for number, transform in enumerate(transforms):
        depth += sum(depth_of(leaf) for leaf in leaf_transforms([transform]))
        if depth > MAX_GRAPH_DEPTH:
            return number
    return len(transforms)


def _reason_at(reason: str, transforms: Sequence[Any], first: int, number: int) -> str:
    """Return the reason for the transform that it applies to; later ones only follow it."""
    if not reason or number == first:
        return reason
    return f"after {type(transforms[first]).__name__}"


def _num_fused(transforms: Sequence[Any]) -> int:
    """Count the leading transforms performed in decoding, fully or in part: crops and at most one final resize."""
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
            return f"{name} reorders or repeats its transforms, and a graph has one order"
    reasons = (
        unsupported_reason(leaf, device=device, approximate=approximate)
        for leaf in leaf_transforms([transform])
    )
    return next(filter(None, reasons), "")
