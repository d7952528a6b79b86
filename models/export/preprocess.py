"""The transforms of a plan's evaluation as a torch module that ONNX can hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...pipeline.compiler.program import Program
from ...pipeline.errors import PlanError
from ...pipeline.plan.plan import Normalization
from ...pipeline.policy.spec import TransformSpec
from .resampling import AREA, CUBIC, LINEAR, NEAREST, Axis, has_exact_cubic, resize

INTERPOLATIONS = {NEAREST: "nearest", LINEAR: "linear", CUBIC: "cubic", AREA: "area"}
BEYOND = 2**31 - 1
"""A row that no image has."""
SUPPORTED = ("Resize", "SmallestMaxSize", "CenterCrop", "Normalize")


@dataclass(frozen=True)
class Step:
    """One resize, if any, followed by one centre crop, if any."""

    size: tuple[int, int] | None = None
    """Height and width of a ``Resize``."""
    shorter_side: int | None = None
    """Shorter side of a ``SmallestMaxSize``."""
    interpolation: int = LINEAR
    area_when_smaller: bool = False
    """Use the area filter where the image shrinks."""
    crops: tuple[tuple[int, int], ...] = ()
    """Heights and widths of centre crops, one after another."""

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of the result; None if they depend on the image."""
        return self.crops[-1] if self.crops else self.size


class Preprocess(torch.nn.Module):
    """Maps uint8 RGB images (N, H, W, 3) of any size to inputs of the network: float32 (N, 3, h, w)."""

    def __init__(self, steps: Sequence[Step], normalization: Normalization | None) -> None:
        super().__init__()
        self._steps = tuple(steps)
        mean, std = ((0.0,), (1.0,)) if normalization is None else (normalization.mean, normalization.std)
        scale = [1 / (255.0 * one) for one in std]
        shift = [-one / other for one, other in zip(mean, std, strict=True)]
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64).float())
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64).float())
        self._normalizes = normalization is not None
        self._exact_cubic = has_exact_cubic()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize, crop and normalise."""
        for step in self._steps:
            images = _apply(step, images, exact_cubic=self._exact_cubic)
        pixels = images.float()
        pixels = pixels * self.scale + self.shift if self._normalizes else pixels / 255
        return pixels.permute(0, 3, 1, 2)


def preprocess_of(program: Program) -> Preprocess:
    """Translate the evaluation transforms of a plan.

    Raises:
        PlanError: a transform or one of its options has no counterpart; names it, and what to do.
    """
    steps: list[Step] = []
    for where, spec in program.specs(augment=False):
        built = spec.build(where)
        if spec.name in ("Resize", "SmallestMaxSize"):
            steps.append(_resize_step(spec, built, where))
        elif spec.name == "CenterCrop" and not built.pad_if_needed:
            size = (built.height, built.width)
            last = steps.pop() if steps else Step()
            steps.append(replace(last, crops=(*last.crops, size)))
        else:
            option = " with pad_if_needed" if spec.name == "CenterCrop" else ""
            raise PlanError(
                f"{where}: expected {', '.join(SUPPORTED)}, which ONNX graphs can hold, got {spec.name}{option}; train with these, "
                "or apply it before the exported network and leave it out of the plan"
            )
    for step in steps:
        if step.output_size is None:
            raise PlanError(
                "evaluate: expected images of one size, got SmallestMaxSize without a crop after it; add a CenterCrop"
            )
    return Preprocess(steps, program.normalization)


def _resize_step(spec: TransformSpec, built: Any, where: str) -> Step:
    if built.interpolation not in INTERPOLATIONS:
        raise PlanError(
            f"{where}.{spec.name}.interpolation: expected {', '.join(f'{number} ({name})' for number, name in INTERPOLATIONS.items())}, "
            f"which ONNX graphs can hold, got {built.interpolation}; train with one of these"
        )
    area = built.area_for_downscale is not None
    if spec.name == "Resize":
        size = (built.height, built.width)
        return Step(size=size, interpolation=built.interpolation, area_when_smaller=area)
    if not isinstance(built.max_size, int):
        raise PlanError(
            f"{where}.SmallestMaxSize: expected max_size as a number, got max_size {built.max_size!r} and max_size_hw "
            f"{built.max_size_hw!r}; write max_size"
        )
    return Step(shorter_side=built.max_size, interpolation=built.interpolation, area_when_smaller=area)


def _apply(step: Step, images: torch.Tensor, *, exact_cubic: bool) -> torch.Tensor:
    height, width = (torch.scalar_tensor(images.shape[axis], dtype=torch.float64) for axis in (1, 2))
    rows, columns = height, width
    smaller = torch.zeros((), dtype=torch.bool)
    if step.size is not None:
        rows, columns = (torch.tensor(float(side), dtype=torch.float64) for side in step.size)
        smaller = (rows < height) | (columns < width)
    elif step.shorter_side is not None:
        factor = step.shorter_side / torch.minimum(height, width)
        rows, columns = (torch.round(side * factor).clamp_min(1) for side in (height, width))
        smaller = factor < 1
    (first_row, rows_fit), (first_column, columns_fit) = (
        _first(step, size, axis) for axis, size in enumerate((rows, columns))
    )
    output = step.output_size
    assert output is not None
    down = Axis(height, rows, torch.arange(output[0], dtype=torch.float64) + first_row)
    across = Axis(width, columns, torch.arange(output[1], dtype=torch.float64) + first_column)
    if step.size is None and step.shorter_side is None:
        result = images.index_select(1, down.neighbours((0,), down.positions.long()))
        result = result.index_select(2, across.neighbours((0,), across.positions.long()))
    else:
        resized = resize(images, down, across, step.interpolation, exact_cubic=exact_cubic)
        if step.area_when_smaller and step.interpolation != AREA:
            resized = torch.where(smaller, resize(images, down, across, AREA), resized)
        result = resized.to(torch.uint8)
    # A row beyond the image, which ONNX runtimes refuse, where a crop is larger than the image.
    return result.index_select(1, torch.where(rows_fit & columns_fit, torch.arange(output[0]), BEYOND))


def _first(step: Step, size: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first row or column that the crops keep, float64, and whether all of them fit."""
    offset = torch.zeros((), dtype=torch.float64)
    fits = torch.ones((), dtype=torch.bool)
    for crop in step.crops:
        fits = fits & (size >= crop[axis])
        offset = offset + torch.floor((size - crop[axis]) / 2)
        size = torch.tensor(float(crop[axis]), dtype=torch.float64)
    return offset, fits
