"""Checks before training and audits: does the model accept the plan's images, and do they match its weights?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...pipeline.compiler.program import Program
from ...pipeline.errors import PlanError
from ...pipeline.plan.plan import Plan
from ...pipeline.transform.output_shapes import RESIZES
from ...pipeline.warning_filter import ignored_warnings
from .build import ModelSpec
from .data_config import data_config
from .forward import eval_mode, run_model
from .preprocessing import AREA, INTERPOLATIONS, Step, expected_policy, interpolation_of, yaml_lines

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, for each channel or one for all, on the scale 0..1."""
COLOUR_SPACE_TRANSFORMS = frozenset({"ToHSV"})
"""Transforms that change the colour space."""
MAX_VALUE = 255
_TOLERANCE = 0.03
"""Tolerance of means and standard deviations of images in 0..1; about 8 of 255 levels."""
_PROBES = ((480, 640), (600, 450))
"""Heights and widths of the images used to determine the output size of a plan."""


def output_shape(plan: Plan, *, augment: bool = False) -> tuple[int, int, int] | None:
    """Return channels, height and width of a plan's images; None if they depend on the input image.

    Args:
        plan: a plan.
        augment: whether in training, not in evaluation.
    """
    program = Program.compile(plan)
    shapes = set()
    for height, width in _PROBES:
        picture = np.zeros((height, width, 3), np.uint8)
        try:
            with ignored_warnings():
                made = program.compose(augment=augment, boxes=False)(image=picture)["image"]
        except Exception:  # the probe may violate a requirement of a transform that the user's images meet
            return None
        shapes.add(made.shape if made.ndim == 3 else (*made.shape, 1))
    if len(shapes) > 1:
        return None
    height, width, channels = shapes.pop()
    return channels, height, width


def check_accepts(model: torch.nn.Module, plan: Plan) -> None:
    """Check that a model accepts the plan's images, by a forward pass with a black one; restores training flags.

    Raises:
        ModelError: the model does not accept their size or number of channels.
    """
    shape = output_shape(plan)
    if shape is None:
        return
    first = next(model.parameters())
    sizes = (shape[1:], *(step.size for step in plan.progressive_size or ()))
    with eval_mode(model), torch.inference_mode():
        for size in sizes:
            run_model(model, torch.zeros(1, shape[0], *size, device=first.device, dtype=first.dtype))


def data_warnings(spec: ModelSpec, plan: Plan) -> tuple[str, ...]:
    """Compare a plan with the preprocessing that a model's pretrained weights expect.

    Returns:
        An empty tuple, or one text: a line that lists all differences, followed by the lines of YAML that correct the plan.
        Weights from a file are not compared, because their preprocessing is unknown.
    """
    if spec.weights != "default" and not spec.weights.startswith("package:"):
        return ()
    config = data_config(spec)
    used = interpolation_of(config)
    # OpenCV's area filter is close to the antialiased filters of torchvision and Pillow, and Lanczos to cubic.
    alike = {used, AREA} | ({INTERPOLATIONS["lanczos"]} if used == INTERPOLATIONS["bicubic"] else set())
    expected = _Expected(config.mean, config.std, config.size, frozenset(alike), expected_policy(config))
    return _warning(plan, expected, f"the preprocessing that the weights of {spec.name} were trained with")


def trained_plan_warnings(job: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """Compare a plan with the one that a checkpoint was trained with.

    Args:
        job: flattened keys of the training job, from the checkpoint.
        plan: plan to compare.

    Returns:
        An empty tuple, or one text in the form of ``data_warnings``. The comparison is skipped if the checkpoint has no plan
        or the plan cannot be built, for example because its policy uses a module that is not allowed.
    """
    if "plan.preprocess" not in job:
        return ()
    written = {
        name: job[f"plan.{name}"] for name in ("preprocess", "evaluate", "augment") if f"plan.{name}" in job
    }
    try:
        trained = Plan.model_validate({"index": plan.index, **written})
        program = Program.compile(trained)
    except PlanError:
        return ()
    shape = output_shape(trained)
    constants = _constants(program)
    if constants is None:
        return ()
    used = _interpolation(program)
    policy = {
        name: [spec.dump() for spec in getattr(trained, name)]
        for name in ("preprocess", "evaluate")
        if getattr(trained, name)
    }
    size = None if shape is None else (shape[1], shape[2])
    expected = _Expected(*constants, size, None if used is None else frozenset({used}), policy)
    return _warning(plan, expected, "the one that the checkpoint was trained with")


@dataclass(frozen=True)
class _Expected:
    """Preprocessing that a model expects."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    interpolations: frozenset[int] | None
    """OpenCV's numbers of equivalent interpolations; None if nothing is resized."""
    policy: Mapping[str, list[Step]]
    """Sections of a plan with this preprocessing."""

    @property
    def constants(self) -> Constants:
        """Mean and standard deviation."""
        return self.mean, self.std


def _warning(plan: Plan, expected: _Expected, than: str) -> tuple[str, ...]:
    """List the differences of a plan from the expected preprocessing, and the lines of YAML that correct it."""
    program = Program.compile(plan)
    of_values = [*_colour_differences(program, expected), *_value_differences(program, expected)]
    of_geometry = [*_size_differences(plan, expected), *_interpolation_differences(program, expected)]
    if not of_values and not of_geometry:
        return ()
    sections = {
        name: [
            step
            for step in steps
            if (of_values and "Normalize" in step) or (of_geometry and "Normalize" not in step)
        ]
        for name, steps in expected.policy.items()
    }
    lines = yaml_lines({name: steps for name, steps in sections.items() if steps})
    sentence = f"the plan differs from {than}: {'; '.join([*of_values, *of_geometry])}"
    if not lines:
        return (sentence,)
    return ("\n".join([sentence, "in the plan, replace the corresponding steps with:", *lines]),)


def _value_differences(program: Program, expected: _Expected) -> list[str]:
    """Compare mean and standard deviation; name the common mistakes BGR order and the range 0..255."""
    constants = _constants(program)
    if constants is None or not (_differ(constants[0], expected.mean) or _differ(constants[1], expected.std)):
        return []
    wanted = f"expected {_format_constants(expected.constants)}"
    if program.normalization is None:
        return [f"{wanted}, got no Normalize, so values are in 0..1"]
    got = f"{wanted}, got Normalize with {_format_constants(constants)}"
    turned = tuple(each[::-1] for each in constants)
    scaled = tuple(tuple(value / MAX_VALUE for value in each) for each in constants)
    if not _differ(turned[0], expected.mean) and not _differ(turned[1], expected.std):
        return [f"{got}, which is BGR order; images are RGB"]
    if not _differ(scaled[0], expected.mean) and not _differ(scaled[1], expected.std):
        return [f"{got}, which is for the range 0..255; divide by 255, or add max_pixel_value: 1.0"]
    return [got]


def _colour_differences(program: Program, expected: _Expected) -> list[str]:
    """List transforms that change the colour space, unless they are expected."""
    wanted = {name for steps in expected.policy.values() for step in steps for name in step}
    found = [
        spec.name
        for spec in (*program.preprocess, *program.evaluate)
        if spec.name in COLOUR_SPACE_TRANSFORMS and spec.name not in wanted
    ]
    return [f"expected RGB images, got {name}; remove it" for name in found]


def _size_differences(plan: Plan, expected: _Expected) -> list[str]:
    shape, size = output_shape(plan), expected.size
    if shape is None or size is None or shape[1:] == size:
        return []
    return [f"expected {size[0]} x {size[1]} pixels, got {shape[1]} x {shape[2]}"]


def _interpolation_differences(program: Program, expected: _Expected) -> list[str]:
    got, wanted = _interpolation(program), expected.interpolations
    if got is None or wanted is None or got in wanted:
        return []
    names = {number: name for name, number in INTERPOLATIONS.items()} | {AREA: "area"}
    first = min(wanted - {AREA} or wanted)
    return [
        f"expected resizing with interpolation {first} ({names.get(first, 'other')}), got {got} ({names.get(got, 'other')})"
    ]


def _interpolation(program: Program) -> int | None:
    """Return OpenCV's number of the interpolation of the last resize in evaluation; None without a resize."""
    for spec in reversed((*program.preprocess, *program.evaluate)):
        if spec.name in RESIZES:
            return int(spec.options.get("interpolation", INTERPOLATIONS["bilinear"]))
    return None


def _constants(program: Program) -> Constants | None:
    """Return the mean and standard deviation of normalisation; None if transforms of the policy normalise."""
    if any("ormalize" in one.name for one in (*program.preprocess, *program.evaluate, *program.augment)):
        return None
    given = program.normalization
    return ((0.0,) * 3, (1.0,) * 3) if given is None else (given.mean, given.std)


def _differ(values: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    """Return whether constants differ; a single value applies to all channels."""
    num = max(len(values), len(expected))
    pairs = [each * num if len(each) == 1 else each for each in (values, expected)]
    return len(pairs[0]) != len(pairs[1]) or any(abs(a - b) > _TOLERANCE for a, b in zip(*pairs, strict=True))


def _format_constants(constants: Constants) -> str:
    mean, std = constants
    return f"mean {_format_numbers(mean)}, std {_format_numbers(std)}"


def _format_numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
