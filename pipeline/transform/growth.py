"""How large a picture can become on its way through a policy, whatever is drawn: a bound that needs neither draws nor pixels."""

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
    """What a policy makes of a picture's size at most."""

    fixed: int = 0
    """Pixels of the largest size that a transform of the policy states."""
    smallest_side: int = 0
    """To which the policy first scales the smaller side; 0 where it does not."""
    needs_sampling: bool = False
    """Whether it depends on draws, or on what stands before, so that only drawing ahead tells it."""

    @classmethod
    def of(cls, transforms: Sequence[Any]) -> Self:
        """Look at the transforms of a policy. Classes that Albumentations does not have are taken to keep the size."""
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
        """Bound the pixels of a picture of some size at any step, for a policy that is not open."""
        height, width = size
        pixels = height * width
        if self.smallest_side:
            scale = self.smallest_side / min(size)
            pixels = max(pixels, ceil(height * scale + 1) * ceil(width * scale + 1))
        return max(pixels, self.fixed)


def largest_pixels(sampled: SampledParams) -> int:
    """Return the pixels of the largest picture behind the first thing that was drawn."""
    sizes = [sampled.size, *(call.size for call in sampled.calls[1:])]
    return max(height * width for height, width in sizes)


def _stated_pixels(leaf: Any, name: str) -> int | None:
    """Return the pixels of the size that a transform always ends in, or within; None where there is none."""
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
