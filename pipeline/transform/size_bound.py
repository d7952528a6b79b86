"""Upper bound of the image size within a policy, computed without sampling parameters or decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Self

from ..geometry import Size
from .params import SampledParams, leaf_transforms

_HEIGHT_WIDTH_TRANSFORMS = frozenset({"Resize", "RandomSizedBBoxSafeCrop"})
_SIZE_TRANSFORMS = frozenset({"RandomResizedCrop", "RandomSizedCrop"})
_FIT_OUTPUT_TRANSFORMS = frozenset({"Affine", "SafeRotate", "ShiftScaleRotate"})
_PADDING_TRANSFORMS = frozenset({"Pad", "PadIfNeeded", "RandomScale"})


@dataclass(frozen=True)
class SizeBound:
    """Upper bound of the image size within a policy."""

    fixed: int = 0
    """Pixels of the largest size stated by a transform of the policy."""
    smallest_side: int = 0
    """Length to which a leading ``SmallestMaxSize`` scales the smaller side; 0 without one."""
    needs_sampling: bool = False
    """Whether the bound depends on sampled parameters or on earlier transforms."""

    @classmethod
    def of(cls, transforms: Sequence[Any]) -> Self:
        """Compute the bound of a policy. Custom transform classes are assumed to keep the size."""
        fixed = smallest_side = 0
        needs_sampling = False
        for number, leaf in enumerate(leaf_transforms(transforms)):
            name = type(leaf).__name__
            if name == "SmallestMaxSize" and number == 0 and leaf.max_size is not None:
                smallest_side = _largest(leaf.max_size)
            elif (pixels := _stated_pixels(leaf, name)) is not None:
                fixed = max(fixed, pixels)
            else:
                needs_sampling = needs_sampling or _may_grow(leaf, name)
        return cls(fixed, smallest_side, needs_sampling)

    def pixels(self, size: Size) -> int:
        """Return the most pixels of an image of this size at any step; valid unless ``needs_sampling``."""
        height, width = size
        pixels = height * width
        if self.smallest_side:
            scale = self.smallest_side / min(size)
            pixels = max(pixels, ceil(height * scale + 1) * ceil(width * scale + 1))
        return max(pixels, self.fixed)


def largest_pixels(sampled: SampledParams) -> int:
    """Return the pixels of the largest image after the first sampled transform."""
    sizes = [sampled.size, *(call.size for call in sampled.calls[1:])]
    return max(height * width for height, width in sizes)


def _stated_pixels(leaf: Any, name: str) -> int | None:
    """Return the pixels of the largest output size that a transform states; None without one."""
    if name in _HEIGHT_WIDTH_TRANSFORMS:
        return int(leaf.height) * int(leaf.width)
    if name in _SIZE_TRANSFORMS:
        return int(leaf.size[0]) * int(leaf.size[1])
    if name == "LongestMaxSize" and leaf.max_size is not None:
        return (_largest(leaf.max_size) + 1) ** 2
    return None


def _may_grow(leaf: Any, name: str) -> bool:
    return (
        name in _PADDING_TRANSFORMS
        or name in ("SmallestMaxSize", "LongestMaxSize")
        or (name in _FIT_OUTPUT_TRANSFORMS and bool(getattr(leaf, "fit_output", True)))
        or (name in ("CropAndPad", "Perspective") and not leaf.keep_size)
        or bool(getattr(leaf, "pad_if_needed", False))
    )


def _largest(sides: int | Sequence[int]) -> int:
    return int(sides) if isinstance(sides, int) else int(max(sides))
