"""Checks of a training run before its first step: does the model take the images, and are they as its weights expect."""

from __future__ import annotations

import numpy as np
import torch

from ...pipeline.compiler.program import Program
from ...pipeline.errors import ModelError
from ...pipeline.plan import Plan
from ...pipeline.quiet import ignored_warnings
from ..checkpoint_file import first_line
from ..data_config import data_config
from ..zoo import ModelSpec

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
        Nothing, or one line that names each difference. Weights from a file are not compared: nothing says how their
        trainer prepared the images.
    """
    if spec.weights != "default" and not spec.weights.startswith("package:"):
        return ()
    program, expected = Program.compile(plan), data_config(spec)
    given = program.normalization
    differences = []
    own = any("ormalize" in one.name for one in (*program.preprocess, *program.evaluate, *program.augment))
    mean, std = ((0.0,) * 3, (1.0,) * 3) if given is None else (given.mean, given.std)
    apart = max(abs(a - b) for a, b in zip((*mean, *std), (*expected.mean, *expected.std), strict=True))
    if not own and apart > _TOLERANCE:
        got = (
            "no Normalize" if given is None else f"Normalize with mean {_numbers(mean)}, std {_numbers(std)}"
        )
        differences.append(
            f"expected mean {_numbers(expected.mean)}, std {_numbers(expected.std)}, got {got}"
        )
    shape = output_shape(plan)
    if shape is not None and shape[1:] != expected.size:
        differences.append(
            f"expected {expected.size[0]} x {expected.size[1]} pixels, got {shape[1]} x {shape[2]}"
        )
    if not differences:
        return ()
    return (
        f"warning: the plan differs from how the weights of {spec.name} were trained: {'; '.join(differences)}",
    )


def _numbers(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:.3g}" for value in values) + "]"
