"""Where each transform of a policy runs: in decoding, in DALI, in OpenCV or in Albumentations, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .decode.plan import CROPS, CROPS_AND_RESIZES, RESIZES
from .drawing import leaves_of
from .lowering.base import Device
from .lowering.table import why_not_lowered
from .sizes import why_unpredictable

Backend = Literal["opencv", "dali"]
"""What does to pixels what was drawn: OpenCV through Albumentations' own functions, or a DALI graph."""

ORDERLY = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "OneOrOther"})
"""Compositions that run what they choose in the order in which it is written, each at most once."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one outermost transform of a policy runs."""

    name: str
    runs_in: Literal["decode", "dali", "opencv", "albumentations"]
    why: str
    """Why nowhere faster; empty where there is nothing to explain."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Where all transforms of a policy run."""

    routes: tuple[Route, ...]
    num_drawn: int
    """Leading transforms that are drawn before there are pixels."""
    num_lowered: int
    """Leading transforms that run in DALI; not more than are drawn."""


def find_routes(transforms: Sequence[Any], *, backend: Backend, device: Device, approximate: bool) -> Routes:
    """Decide for built Albumentations transforms, in order, where each runs.

    The drawn beginning ends with the first transform that needs pixels to decide, the lowered beginning with the
    first that DALI cannot take: from there on the order of steps is kept by staying outside.
    """
    routes: list[Route] = []
    drawn_stop, lowered_stop = "", "" if backend == "dali" else "the plan's device is the CPU"
    num_lowered = 0
    fusing = True
    for transform in transforms:
        name = type(transform).__name__
        drawn_stop = drawn_stop or _stop(name, why_unpredictable(transform))
        if drawn_stop:
            routes.append(Route(name, "albumentations", drawn_stop))
            fusing = False
            continue
        fused, fusing = _fused(transform, fusing=fusing)
        if not lowered_stop:
            lowered_stop = _stop(name, _why_not_in_graph(transform, device=device, approximate=approximate))
        if not lowered_stop:
            num_lowered += 1
            routes.append(Route(name, "decode" if fused and name in CROPS else "dali", ""))
        else:
            why = lowered_stop if backend == "dali" else ""
            routes.append(Route(name, "decode" if fused and backend == "opencv" else "opencv", why))
    num_drawn = sum(route.runs_in != "albumentations" for route in routes)
    return Routes(tuple(routes), num_drawn, num_lowered)


def _stop(name: str, reason: str) -> str:
    """Keep a reason with the transform that it is about, for it and for all that follow."""
    return reason if not reason or name in reason else f"{name}: {reason}"


def _fused(transform: Any, *, fusing: bool) -> tuple[bool, bool]:
    """Say whether decoding may do a transform, and whether it may go on with the next one."""
    name = type(transform).__name__
    if not fusing or transform.p < 1:
        return False, False
    if name in CROPS:
        return True, True
    return name in CROPS_AND_RESIZES | RESIZES, False


def _why_not_in_graph(transform: Any, *, device: Device, approximate: bool) -> str:
    if hasattr(transform, "transforms"):
        name = type(transform).__name__
        if name not in ORDERLY or getattr(transform, "replace", False):
            return f"{name} changes the order of its transforms or repeats them; a graph has one order"
    reasons = (
        why_not_lowered(leaf, device=device, approximate=approximate) for leaf in leaves_of([transform])
    )
    return next(filter(None, reasons), "")
