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
CONSTANT = 0
"""OpenCV's number of a border of one value."""
BEYOND = 2**31 - 1
"""A row that no image has."""
SUPPORTED = ("Resize", "SmallestMaxSize", "LongestMaxSize", "PadIfNeeded", "CenterCrop", "Normalize")


@dataclass(frozen=True)
class Step:
    """One resize, if any, a padding, if any, and centre crops."""

    size: tuple[int, int] | None = None
    """Height and width of a ``Resize``."""
    shorter_side: int | None = None
    """Shorter side of a ``SmallestMaxSize``."""
    longer_side: int | None = None
    """Longer side of a ``LongestMaxSize``."""
    interpolation: int = LINEAR
    area_when_smaller: bool = False
    """Use the area filter where the image shrinks."""
    pad: tuple[int, int] | None = None
    """Height and width of a ``PadIfNeeded``, around the centre; images are at most as large."""
    fill: tuple[float, ...] = (0.0,)
    """Value of each channel in the padding, or one for all."""
    crops: tuple[tuple[int, int], ...] = ()
    """Heights and widths of centre crops, one after another."""

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of the result; None if they depend on the image."""
        return self.crops[-1] if self.crops else self.pad or self.size

    @property
    def resizes(self) -> bool:
        """Whether the image is resized."""
        return any(each is not None for each in (self.size, self.shorter_side, self.longer_side))


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
        if spec.name in ("Resize", "SmallestMaxSize", "LongestMaxSize"):
            steps.append(_resize_step(spec, built, where))
        elif spec.name == "PadIfNeeded":
            steps.append(_padded_step(steps.pop() if steps else Step(), built, where))
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
                "evaluate: expected images of one size, got a resize to one side only; add a CenterCrop or PadIfNeeded"
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
            f"{where}.{spec.name}: expected max_size as a number, got max_size {built.max_size!r} and max_size_hw "
            f"{built.max_size_hw!r}; write max_size"
        )
    step = Step(interpolation=built.interpolation, area_when_smaller=area)
    if spec.name == "SmallestMaxSize":
        return replace(step, shorter_side=built.max_size)
    return replace(step, longer_side=built.max_size)


def _padded_step(step: Step, built: Any, where: str) -> Step:
    """Return a step with a padding after its resize.

    Raises:
        PlanError: the size of the result would depend on the image, or the padding is not a constant around the centre.
    """
    side = step.longer_side
    most = step.output_size or (None if side is None else (side, side))
    size = built.min_height, built.min_width
    plain = built.border_mode == CONSTANT and built.position == "center" and not (step.pad or step.crops)
    if None in size or most is None or most[0] > size[0] or most[1] > size[1] or not plain:
        after = "images of any size" if most is None else f"images of up to {most[0]} x {most[1]}"
        raise PlanError(
            f"{where}.PadIfNeeded: expected min_height and min_width of at least what the resize before it yields, a constant "
            f"border and position: center, which ONNX graphs can hold, got {size[0]} x {size[1]} after {after}, border_mode "
            f"{built.border_mode} and {built.position}; train with these"
        )
    fill = built.fill if isinstance(built.fill, tuple) else (built.fill,)
    return replace(step, pad=size, fill=tuple(float(value) for value in fill))


def _apply(step: Step, images: torch.Tensor, *, exact_cubic: bool) -> torch.Tensor:
    height, width = (torch.scalar_tensor(images.shape[axis], dtype=torch.float64) for axis in (1, 2))
    rows, columns = height, width
    smaller = torch.zeros((), dtype=torch.bool)
    if step.size is not None:
        rows, columns = (torch.tensor(float(side), dtype=torch.float64) for side in step.size)
        smaller = (rows < height) | (columns < width)
    elif step.resizes:
        if step.shorter_side is not None:
            factor = step.shorter_side / torch.minimum(height, width)
        else:
            assert step.longer_side is not None
            factor = step.longer_side / torch.maximum(height, width)
        rows, columns = (torch.round(side * factor).clamp_min(1) for side in (height, width))
        smaller = factor < 1
    (first_row, rows_fit), (first_column, columns_fit) = (
        _first(step, size, axis) for axis, size in enumerate((rows, columns))
    )
    output = step.output_size
    assert output is not None
    places = [
        torch.arange(side, dtype=torch.float64) + first
        for side, first in zip(output, (first_row, first_column), strict=True)
    ]
    down, across = (
        Axis(before, after, place.clamp_min(0).minimum(after - 1) if step.pad else place)
        for before, after, place in zip((height, width), (rows, columns), places, strict=True)
    )
    if step.resizes:
        resized = resize(images, down, across, step.interpolation, exact_cubic=exact_cubic)
        if step.area_when_smaller and step.interpolation != AREA:
            resized = torch.where(smaller, resize(images, down, across, AREA), resized)
        result = resized.to(torch.uint8)
    else:
        result = images.index_select(1, down.neighbours((0,), down.positions.long()))
        result = result.index_select(2, across.neighbours((0,), across.positions.long()))
    if step.pad:
        in_row, in_column = (
            (place >= 0) & (place < after) for place, after in zip(places, (rows, columns), strict=True)
        )
        inside = in_row[:, None, None] & in_column[:, None]
        result = torch.where(inside, result, torch.tensor(step.fill).to(torch.uint8))
    # A row beyond the image, which ONNX runtimes refuse, where a crop is larger than the image.
    return result.index_select(1, torch.where(rows_fit & columns_fit, torch.arange(output[0]), BEYOND))


def _first(step: Step, size: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first row or column that padding and crops keep, float64, and whether all crops fit."""
    offset = torch.zeros((), dtype=torch.float64)
    fits = torch.ones((), dtype=torch.bool)
    if step.pad is not None:
        offset = -torch.floor((step.pad[axis] - size) / 2)
        size = torch.tensor(float(step.pad[axis]), dtype=torch.float64)
    for crop in step.crops:
        fits = fits & (size >= crop[axis])
        offset = offset + torch.floor((size - crop[axis]) / 2)
        size = torch.tensor(float(crop[axis]), dtype=torch.float64)
    return offset, fits
