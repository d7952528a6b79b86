"""Transforms for the preprocessing that a model's pretrained weights expect, as values and as YAML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from .data_config import DataConfig

Step = Mapping[str, Mapping[str, Any]]
"""A transform: its name mapped to its options."""

INTERPOLATIONS = {"nearest": 0, "bilinear": 1, "bicubic": 2, "lanczos": 4}
"""Interpolation names of the hubs, with OpenCV's numbers as used by Albumentations."""
AREA = 3
"""OpenCV's INTER_AREA, which averages when downscaling, as the antialiased filters of torchvision and Pillow do."""


def interpolation_of(config: DataConfig) -> int:
    """Return OpenCV's number of the weights' interpolation; bilinear if OpenCV does not have it."""
    return INTERPOLATIONS.get(config.interpolation, INTERPOLATIONS["bilinear"])


def expected_policy(config: DataConfig) -> dict[str, list[Step]]:
    """Return ``preprocess``, ``augment`` and ``evaluate`` of a plan with the preprocessing of pretrained weights."""
    height, width = config.size
    how = {"interpolation": interpolation_of(config)}
    resized = [math.floor(side / config.crop + 1e-6) for side in config.size]
    crop: list[Step] = [{"CenterCrop": {"height": height, "width": width}}]
    if config.crop_mode == "squash" or height != width:
        resize: Step = {"Resize": {"height": resized[0], "width": resized[1], **how}}
        crop = [] if resized == [height, width] else crop
    else:
        resize = {"SmallestMaxSize": {"max_size": resized[0], **how}}
    return {
        "preprocess": [{"Normalize": {"mean": list(config.mean), "std": list(config.std)}}],
        "augment": [{"RandomResizedCrop": {"size": [height, width], **how}}],
        "evaluate": [resize, *crop],
    }


def yaml_lines(policy: Mapping[str, Iterable[Step]]) -> list[str]:
    """Format sections of a plan as YAML, one line per transform."""
    lines = []
    for section, steps in policy.items():
        written = [f"  - {step_line(step)}" for step in steps]
        lines += [f"{section}:", *written] if written else [f"{section}: []"]
    return lines


def step_line(step: Step) -> str:
    """Format a transform as one line of YAML."""
    ((name, options),) = step.items()
    return f"{name}: {flow(options)}" if options else name


def flow(value: Mapping[str, Any] | Sequence[Any] | str) -> str:
    """Format a value as YAML flow style on one line; ambiguous strings are quoted."""
    written = yaml.safe_dump(
        [value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=math.inf
    )
    return written.strip()[1:-1]
