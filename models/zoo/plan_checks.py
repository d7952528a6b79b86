"""Does a model take the images of a plan, and are they as its weights expect: what training and audits ask before they begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...pipeline.compiler.program import Program
from ...pipeline.errors import ModelError, PlanError
from ...pipeline.plan.plan import Plan
from ...pipeline.transform.output_shapes import RESIZES
from ...pipeline.warning_filter import ignored_warnings
from .build import ModelSpec
from .checkpoint_file import first_line
from .data_config import data_config
from .expected_policy import AREA, INTERPOLATIONS, Step, expected_policy, interpolation_of, yaml_lines

Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation, for each channel or one for all, on the scale 0..1."""
OTHER_COLOURS = frozenset({"ToHSV"})
"""Transforms after which channels are no longer red, green and blue."""
MAX_VALUE = 255
_TOLERANCE = 0.03
"""Of means and standard deviations on the scale 0..1, about 8 of 255."""
_PROBES = ((480, 640), (600, 450))
"""Heights and widths of the pictures that are sent through a plan to find the size that it makes."""


def output_shape(plan: Plan) -> tuple[int, int, int] | None:
    """Return channels, height and width of a plan's evaluated images; None where they depend on the picture."""
    program = Program.compile(plan)
    shapes = set()
    for height, width in _PROBES:
        picture = np.zeros((height, width, 3), np.uint8)
        try:
            with ignored_warnings():
                made = program.compose(augment=False, boxes=False)(image=picture)["image"]
        except Exception:  # a picture that a transform refuses says nothing about the user's pictures
            return None
        shapes.add(made.shape if made.ndim == 3 else (*made.shape, 1))
    if len(shapes) > 1:
        return None
    height, width, channels = shapes.pop()
    return channels, height, width


def check_accepts(model: torch.nn.Module, plan: Plan) -> None:
    """Run one black image of the plan's size through a model; its training flags are left as they were.

    Raises:
        ModelError: the model does not take images of that size or of so many channels.
    """
    shape = output_shape(plan)
    if shape is None:
        return
    flags = {part: part.training for part in model.modules()}
    first = next(model.parameters())
    model.eval()
    try:
        with torch.inference_mode():
            model(torch.zeros(1, *shape, device=first.device, dtype=first.dtype))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ModelError(
            f"model: expected images that {type(model).__name__} takes, got {shape[1]} x {shape[2]} pixels of {shape[0]} "
            f"channels ({first_line(error)}); resize in the plan, or choose another model"
        ) from error
    finally:
        for part, flag in flags.items():
            part.training = flag


def data_warnings(spec: ModelSpec, plan: Plan) -> tuple[str, ...]:
    """Compare a plan with how the published weights of a model expect their images.

    Returns:
        Nothing, or one text: a line that names each difference, and below it the lines of YAML that mend the plan. Weights
        from a file are not compared: nothing says how their trainer prepared the images.
    """
    if spec.weights != "default" and not spec.weights.startswith("package:"):
        return ()
    config = data_config(spec)
    used = interpolation_of(config)
    # OpenCV's area filter shrinks as the antialiased filters of the hubs do; Lanczos is close to cubic.
    alike = {used, AREA} | ({INTERPOLATIONS["lanczos"]} if used == INTERPOLATIONS["bicubic"] else set())
    expected = _Expected(config.mean, config.std, config.size, frozenset(alike), expected_policy(config))
    return _warning(plan, expected, f"how the weights of {spec.name} were trained")


def trained_plan_warnings(job: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """Compare a plan with the one that a checkpoint was trained on.

    Args:
        job: all keys of the training job, flat, as the checkpoint holds them.
        plan: of the images that the model is asked about.

    Returns:
        Nothing, or one text, as ``data_warnings`` does. A plan that cannot be built here, since its policy is of a module
        that is not allowed, is not compared; nor is one that the checkpoint does not hold.
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
    return _warning(plan, expected, "the one that the checkpoint was trained on")


@dataclass(frozen=True)
class _Expected:
    """What a model expects of its images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    interpolations: frozenset[int] | None
    """OpenCV's numbers of those that give nearly the same; None where nothing is resized."""
    policy: Mapping[str, list[Step]]
    """Sections of a plan that prepare images so."""

    @property
    def constants(self) -> Constants:
        """Mean and standard deviation."""
        return self.mean, self.std


def _warning(plan: Plan, expected: _Expected, than: str) -> tuple[str, ...]:
    """Say in what a plan's evaluated images differ from what is expected, and write the lines that mend it."""
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
    return ("\n".join([sentence, "write in the plan, in place of its own steps for this:", *lines]),)


def _value_differences(program: Program, expected: _Expected) -> list[str]:
    """Compare mean and standard deviation; a usual mistake is called by its name."""
    constants = _constants(program)
    if constants is None or not (_differ(constants[0], expected.mean) or _differ(constants[1], expected.std)):
        return []
    wanted = f"expected {_format_constants(expected.constants)}"
    if program.normalization is None:
        return [f"{wanted}, got no Normalize, so that values are 0..1"]
    got = f"{wanted}, got Normalize with {_format_constants(constants)}"
    turned = tuple(each[::-1] for each in constants)
    scaled = tuple(tuple(value / MAX_VALUE for value in each) for each in constants)
    if not _differ(turned[0], expected.mean) and not _differ(turned[1], expected.std):
        return [f"{got}, which is the order blue, green, red; images are red, green, blue"]
    if not _differ(scaled[0], expected.mean) and not _differ(scaled[1], expected.std):
        return [f"{got}, which is the range 0..255; Normalize takes 0..1, or max_pixel_value: 1.0 with these"]
    return [got]


def _colour_differences(program: Program, expected: _Expected) -> list[str]:
    """Name transforms after which channels are no longer red, green and blue, unless they are expected."""
    wanted = {name for steps in expected.policy.values() for step in steps for name in step}
    found = [
        spec.name
        for spec in (*program.preprocess, *program.evaluate)
        if spec.name in OTHER_COLOURS and spec.name not in wanted
    ]
    return [f"expected the colours red, green, blue, got those of {name}; take it out" for name in found]


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
    """Return OpenCV's number of the interpolation that evaluated images are resized with; None where none is."""
    for spec in reversed((*program.preprocess, *program.evaluate)):
        if spec.name in RESIZES:
            return int(spec.options.get("interpolation", INTERPOLATIONS["bilinear"]))
    return None


def _constants(program: Program) -> Constants | None:
    """Return mean and standard deviation that images are normalised with; None where transforms of the policy do it."""
    if any("ormalize" in one.name for one in (*program.preprocess, *program.evaluate, *program.augment)):
        return None
    given = program.normalization
    return ((0.0,) * 3, (1.0,) * 3) if given is None else (given.mean, given.std)


def _differ(values: tuple[float, ...], expected: tuple[float, ...]) -> bool:
    """Say whether constants differ, of which one may stand for all channels."""
    num = max(len(values), len(expected))
    pairs = [each * num if len(each) == 1 else each for each in (values, expected)]
    return len(pairs[0]) != len(pairs[1]) or any(abs(a - b) > _TOLERANCE for a, b in zip(*pairs, strict=True))


def _format_constants(constants: Constants) -> str:
    mean, std = constants
    return f"mean {_format_numbers(mean)}, std {_format_numbers(std)}"


def _format_numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
