"""From the network's image back to the picture: the inverse of a plan's resizes, crops and paddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ....pipeline.compiler.program import Program
from ....pipeline.formats.mask_headers import IGNORED
from ....pipeline.geometry import Size
from ....pipeline.policy.registry import load_albumentations
from ....pipeline.transform.output_shapes import RESIZES
from ....pipeline.transform.params import ParamSampler

CROPS = frozenset({"CenterCrop", "Crop"})
PADS = frozenset({"Pad", "PadIfNeeded"})
INVERTIBLE = (*sorted(RESIZES), *sorted(CROPS), *sorted(PADS))
"""Transforms that can be undone, besides those that change colours only."""
MAX_SIZES = 64
"""Picture sizes whose maps are kept."""


@dataclass(frozen=True)
class AxisMap:
    """Places along one axis, in pixels from the edge: ``scale * place in the picture + offset``."""

    scale: float = 1.0
    offset: float = 0.0

    def then(self, scale: float, offset: float) -> AxisMap:
        """Return the map that is followed by another."""
        return AxisMap(self.scale * scale, self.offset * scale + offset)

    def pixels(self, num_picture: int, num_image: int) -> np.ndarray:
        """Return the image's pixel below the centre of each of the picture's: int64, -1 where there is none."""
        place = np.floor((np.arange(num_picture) + 0.5) * self.scale + self.offset).astype(np.int64)
        return np.where((place >= 0) & (place < num_image), place, -1)


class MaskGeometry:
    """Undoes the geometry of a plan's evaluation. One thread at a time.

    Args:
        program: the compiled plan.
    """

    def __init__(self, program: Program) -> None:
        albumentations = load_albumentations()
        built = [spec.build(where) for where, spec in program.specs(augment=False)]
        moving = [one for one in built if not isinstance(one, albumentations.ImageOnlyTransform)]
        others = [type(one).__name__ for one in moving if type(one).__name__ not in INVERTIBLE]
        self.obstacle: str = others[0] if others else ""
        """Name of a transform that cannot be undone; empty if all can."""
        self._sampler = ParamSampler(albumentations.Compose(moving, is_check_shapes=False), len(moving))
        self._pixels = lru_cache(MAX_SIZES)(self._find_pixels)

    def to_picture(self, mask: np.ndarray, size: Size) -> np.ndarray:
        """Return a mask of the network's image in the size of the picture.

        Args:
            mask: uint8, shape (height, width): classes of the network's image.
            size: height and width of the upright picture.

        Returns:
            uint8: the class below each pixel's centre, ``IGNORED`` where the network did not see the picture; the mask as it
            is if the geometry cannot be undone.
        """
        if self.obstacle:
            return mask
        rows, columns = self._pixels(size)
        found = mask[np.ix_(rows, columns)]
        found[rows < 0] = IGNORED
        found[:, columns < 0] = IGNORED
        return np.ascontiguousarray(found)

    def _find_pixels(self, size: Size) -> tuple[np.ndarray, np.ndarray]:
        sampled = self._sampler.sample(0, size)
        down, across = AxisMap(), AxisMap()
        after = [*(call.size for call in sampled.calls[1:]), sampled.size]
        for call, (height, width) in zip(sampled.calls, after, strict=True):
            kind = type(self._sampler.transform_at(call.transform_index)).__name__
            if kind in RESIZES:
                down = down.then(height / call.size[0], 0.0)
                across = across.then(width / call.size[1], 0.0)
            else:
                top, left = _moved(kind, call.params)
                down, across = down.then(1.0, top), across.then(1.0, left)
        return down.pixels(size[0], sampled.size[0]), across.pixels(size[1], sampled.size[1])


def _moved(kind: str, params: Any) -> tuple[int, int]:
    """Return how far a crop or padding moves the picture's upper left corner down and to the right."""
    if kind in PADS:
        return params["pad_top"], params["pad_left"]
    x0, y0, *_ = params["crop_coords"]
    pads = params.get("pad_params") or {}
    return pads.get("pad_top", 0) - y0, pads.get("pad_left", 0) - x0
