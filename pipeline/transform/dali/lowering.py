"""What a lowering is: small functions from a drawn transform to the arguments of DALI operators."""

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
    """How far a faster path may be from Albumentations on uint8 pixels, in the worst case over pictures.

    Both bounds hold where both are given.
    """

    max_levels: int | None = None
    """Largest difference of any value, of 255."""
    min_psnr_db: float | None = None
    """Smallest peak signal-to-noise ratio of any picture."""

    def __str__(self) -> str:
        if self.max_levels == 0:
            return "exact"
        levels = f"at most {self.max_levels} of 255" if self.max_levels is not None else ""
        psnr = f"at least {self.min_psnr_db:g} dB" if self.min_psnr_db is not None else ""
        return ", ".join(part for part in (levels, psnr) if part)


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
    """How some Albumentations classes become DALI operators.

    ``arguments_of(transform, params, size)`` turns what was drawn for one picture of height and width ``size``
    into one array for each of ``arguments``; it runs on the host, once per sample. ``emit(transform, images,
    nodes, device)`` adds the operators to the graph, once per graph: ``images`` are uint8 HWC RGB of any sizes, and
    so are those that it returns; ``nodes`` are the arguments, on the CPU. It runs for the samples that drew the
    transform and for no other.
    """

    transforms: tuple[str, ...]
    """Names of Albumentations classes."""
    arguments: tuple[Argument, ...]
    arguments_of: Callable[[Any, Mapping[str, Any], Size], tuple[Any, ...]]
    emit: Callable[[Any, Node, tuple[Node, ...], Device], Node]
    tolerance: Tolerance
    unsupported: Callable[[Any], str] = lambda _: ""
    """Why a transform with these options cannot be lowered; empty where it can."""
    gpu_only: str = ""
    """Why DALI can do this on a GPU only; empty where it can on both."""
    approximate: bool = False
    """Another law than Albumentations': taken only where the plan says ``lowering: approximate``."""
    approximation: Callable[[Any], Tolerance | None] = lambda _: None
    """The bound where DALI follows another law with these options, such as a cubic filter; None where it does not."""

    def is_approximate(self, transform: Any) -> bool:
        """Say whether DALI follows another law than Albumentations for a transform with these options."""
        return self.approximate or self.approximation(transform) is not None

    def tolerance_of(self, transform: Any) -> Tolerance:
        """Say how far from Albumentations a transform with these options may be."""
        return self.approximation(transform) or self.tolerance


def as_array(value: Any, argument: Argument) -> np.ndarray:
    """Bring one argument to what the graph expects."""
    array = np.ascontiguousarray(value, dtype=argument.dtype).reshape(np.shape(value))
    assert array.ndim == argument.ndim, (
        f"{argument.name}: expected {argument.ndim} dimensions, got {array.ndim}"
    )
    return array
