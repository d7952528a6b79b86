"""Progressive image size: training images of the first epochs are smaller than the plan's.

Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML 2021, section 4: the size grows in steps over the
epochs. Their second half, stronger augmentation with larger images, is not covered.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pydantic import Field, field_validator

from ..config.checked_model import CheckedModel
from ..errors import PlanError
from ..geometry import Size

MAX_SIDE = 2**16


class SizeStep(CheckedModel):
    """Size of the training images up to an epoch."""

    until_epoch: int = Field(ge=1)
    """Number of epochs from the start of the training; the next step, or the plan's own size, begins after them."""
    size: tuple[int, int]
    """Height and width; a single number is both."""

    @field_validator("size", mode="before")
    @classmethod
    def _parse_size(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: Size) -> Size:
        if not all(1 <= side <= MAX_SIDE for side in size):
            raise ValueError(
                f"expected a height and width of 1 to {MAX_SIDE}, got {list(size)}; correct them"
            )
        return size


def check_steps(steps: Sequence[SizeStep]) -> None:
    """Check that epochs and sizes grow from each step to the next.

    Raises:
        PlanError: they do not.
    """
    epochs = [step.until_epoch for step in steps]
    if not steps or any(first >= second for first, second in pairwise(epochs)):
        raise PlanError(
            f"progressive_size: expected steps whose until_epoch increases, got {epochs or 'none'}; write "
            "[{until_epoch: 5, size: 128}, {until_epoch: 10, size: 176}], or leave it out"
        )
    for first, second in pairwise(steps):
        if any(a > b for a, b in zip(first.size, second.size, strict=True)):
            raise PlanError(
                f"progressive_size: expected sizes that grow, got {list(first.size)} before {list(second.size)}; order them"
            )


def size_at(steps: Sequence[SizeStep] | None, epoch: int) -> Size | None:
    """Return the size of an epoch's training images; None for the plan's own."""
    return next((step.size for step in steps or () if epoch < step.until_epoch), None)
