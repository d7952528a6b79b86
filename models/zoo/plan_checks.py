"""Checks before training and audits: does the model accept the plan's images, and do they match its weights?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...pipeline.compiler.program import Program
from ...pipeline.errors import ModelError, PlanError
from ...pipeline.plan.plan import Plan
from ...pipeline.warning_filter import ignored_warnings
from .build import ModelSpec
from .checkpoint_file import first_line
from .data_config import data_config

_TOLERANCE = 0.03
"""Tolerance of means and standard deviations of images in 0..1; about 8 of 255 levels."""
_PROBES = ((480, 640), (600, 450))
"""Heights and widths of the images used to determine the output size of a plan."""


def output_shape(plan: Plan) -> tuple[int, int, int] | None:
    """Return channels, height and width of a plan's images in evaluation; None if they depend on the input image."""
    program = Program.compile(plan)
    shapes = set()
    for height, width in _PROBES:
        picture = np.zeros((height, width, 3), np.uint8)
        try:
            with ignored_warnings():
                made = program.compose(augment=False, boxes=False)(image=picture)["image"]
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
            f"model: expected images that {type(model).__name__} accepts, got {shape[1]} x {shape[2]} pixels of {shape[0]} "
            f"channels ({first_line(error)}); resize in the plan, or choose another model"
        ) from error
    finally:
        for part, flag in flags.items():
            part.training = flag


def data_warnings(spec: ModelSpec, plan: Plan) -> tuple[str, ...]:
    """Compare a plan with the preprocessing that a model's pretrained weights expect.

    Returns:
        An empty tuple, or one line that lists all differences. Weights from a file are not compared, because their
        preprocessing is unknown.
    """
    if spec.weights != "default" and not spec.weights.startswith("package:"):
        return ()
    expected = data_config(spec)
    return _warning(
        _differences(plan, (expected.mean, expected.std), expected.size),
        f"the preprocessing that the weights of {spec.name} were trained with",
    )


def trained_plan_warnings(job: Mapping[str, Any], plan: Plan) -> tuple[str, ...]:
    """Compare a plan with the one that a checkpoint was trained with.

    Args:
        job: flattened keys of the training job, from the checkpoint.
        plan: plan to compare.

    Returns:
        An empty tuple, or one line that lists all differences. The comparison is skipped if the checkpoint has no plan or
        the plan cannot be built, for example because its policy uses a module that is not allowed.
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
    return _warning(
        _differences(plan, constants, None if shape is None else (shape[1], shape[2])),
        "the one that the checkpoint was trained with",
    )


def _warning(differences: list[str], than: str) -> tuple[str, ...]:
    return (f"the plan differs from {than}: {'; '.join(differences)}",) if differences else ()


def _differences(
    plan: Plan, expected: tuple[tuple[float, ...], tuple[float, ...]], size: tuple[int, int] | None
) -> list[str]:
    """List the differences of a plan from the expected normalisation and image size."""
    program = Program.compile(plan)
    constants, differences = _constants(program), []
    if constants is not None and (_differ(constants[0], expected[0]) or _differ(constants[1], expected[1])):
        got = (
            "no Normalize"
            if program.normalization is None
            else f"Normalize with {_format_constants(constants)}"
        )
        differences.append(f"expected {_format_constants(expected)}, got {got}")
    shape = output_shape(plan)
    if shape is not None and size is not None and shape[1:] != size:
        differences.append(f"expected {size[0]} x {size[1]} pixels, got {shape[1]} x {shape[2]}")
    return differences


def _constants(program: Program) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
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


def _format_constants(constants: tuple[tuple[float, ...], tuple[float, ...]]) -> str:
    mean, std = constants
    return f"mean {_format_numbers(mean)}, std {_format_numbers(std)}"


def _format_numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
