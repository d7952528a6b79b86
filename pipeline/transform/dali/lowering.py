"""Lowering: conversion of a sampled transform to the arguments of DALI operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...geometry import Size

Device = Literal["cpu", "gpu"]
Node = Any
"""A node of a DALI graph."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest deviation of a faster path from Albumentations on uint8 pixels, in the worst case over images.

    If both bounds are given, both hold.
    """

    max_levels: int | None = None
    """Largest difference of any value, 0..255."""
    min_psnr_db: float | None = None
    """Smallest peak signal-to-noise ratio of any image."""

    def __str__(self) -> str:
        if self.max_levels == 0:
            return "exact"
        levels = f"at most {self.max_levels} of 255" if self.max_levels is not None else ""
        psnr = f"at least {self.min_psnr_db:g} dB" if self.min_psnr_db is not None else ""
        return ", ".join(part for part in (levels, psnr) if part)


MAX_GRAPH_DEPTH = 700
"""Most operators in sequence of a graph: DALI collects them by recursion, and Python allows 1,000 nested calls."""
EXACT = Tolerance(max_levels=0)
ONE_LEVEL = Tolerance(max_levels=1)


@dataclass(frozen=True, slots=True)
class Argument:
    """One per-sample input of the operators."""

    name: str
    dtype: Literal["uint8", "int16", "int32", "float32", "bool"]
    ndim: int = 0


@dataclass(frozen=True, slots=True)
class Lowering:
    """Conversion of some Albumentations classes to DALI operators.

    ``arguments_of(transform, params, size)`` converts the sampled parameters of an image of height and width ``size``
    to one array for each of ``arguments``; it runs on the host, once per sample. ``emit(transform, images, nodes,
    device)`` adds the operators to the graph, once per graph: ``images`` and the result are uint8 HWC RGB of any sizes;
    ``nodes`` are the arguments, on the CPU. The operators run only for samples with this transform.
    """

    transforms: tuple[str, ...]
    """Names of Albumentations classes."""
    arguments: tuple[Argument, ...]
    arguments_of: Callable[[Any, Mapping[str, Any], Size], tuple[Any, ...]]
    emit: Callable[[Any, Node, tuple[Node, ...], Device], Node]
    tolerance: Tolerance
    unsupported: Callable[[Any], str] = lambda _: ""
    """Returns why a transform with these options cannot be lowered; empty if it can."""
    gpu_only: str = ""
    """Why DALI supports this on a GPU only; empty if on both devices."""
    approximate: bool = False
    """Whether DALI uses a different algorithm; only used if the plan says ``lowering: approximate``."""
    depth: int = 6
    """Largest number of operators in sequence that ``emit`` and its condition add to a graph, with any options."""
    approximation: Callable[[Any], Tolerance | None] = lambda _: None
    """Returns the tolerance if DALI uses a different algorithm with these options, such as a cubic filter; else None."""

    def is_approximate(self, transform: Any) -> bool:
        """Return whether DALI uses a different algorithm for a transform with these options."""
        return self.approximate or self.approximation(transform) is not None

    def tolerance_of(self, transform: Any) -> Tolerance:
        """Return the tolerance of a transform with these options."""
        return self.approximation(transform) or self.tolerance


def as_array(value: Any, argument: Argument) -> np.ndarray:
    """Convert an argument to the dtype and dimensions that the graph expects."""
    array = np.ascontiguousarray(value, dtype=argument.dtype).reshape(np.shape(value))
    assert array.ndim == argument.ndim, (
        f"{argument.name}: expected {argument.ndim} dimensions, got {array.ndim}"
    )
    return array
