"""Table of lowerings by transform class."""

from __future__ import annotations

from typing import Any

from .lowering import Lowering
from .ops import (
    chromatic_aberration,
    colors,
    compression,
    crops,
    distortions,
    dropout,
    filters,
    flips,
    intensity,
    jitter,
    morphology,
    noise,
    resizes,
    warps,
    weather,
)
from .unsupported import ALBUMENTATIONS_ONLY

OP_MODULES = (
    *(crops, resizes, flips, warps, distortions, dropout, morphology),
    *(intensity, colors, jitter, filters, compression, noise, weather, chromatic_aberration),
)

_BY_NAME: dict[str, Lowering] = {
    name: lowering for rules in OP_MODULES for lowering in rules.LOWERINGS for name in lowering.transforms
}


def lowering_of(name: str) -> Lowering | None:
    """Return the lowering of an Albumentations class by name."""
    return _BY_NAME.get(name)


def depth_of(transform: Any) -> int:
    """Return the largest number of operators in sequence that a lowered transform adds to a graph."""
    return _BY_NAME[type(transform).__name__].depth


def unsupported_reason(transform: Any, *, device: str, approximate: bool) -> str:
    """Return why DALI does not run a transform with these options on a device; empty if it does."""
    name = type(transform).__name__
    lowering = _BY_NAME.get(name) if type(transform).__module__.startswith("albumentations.") else None
    if lowering is None:
        return f"{name} {ALBUMENTATIONS_ONLY.get(name, 'is a custom class or not known to Lightwell')}"
    if lowering.gpu_only and device == "cpu":
        return lowering.gpu_only
    reason = lowering.unsupported(transform)
    if not reason and lowering.is_approximate(transform) and not approximate:
        bound = lowering.tolerance_of(transform)
        return f"DALI uses a different algorithm; write `lowering: approximate` to use it ({bound})"
    return reason
