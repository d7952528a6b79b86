"""Whether a map changes where the image does: the test of a target layer and its layout."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ...zoo.map_layout import MapLayout
from ..token_layout import measure_shift, patch_images

Maps = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Signed maps (N, h, w) of images (N, C, H, W) for classes (N,)."""


def follows_patch(maps: Maps, image_nchw: torch.Tensor, output: int) -> bool:
    """Return whether the map of an image changes at the place of a patch, in each quadrant.

    A map of a wrong token grid, or of a layer whose cells see the whole image alike, does not.

    Args:
        maps: called once, with five images.
        image_nchw: one image, (1, C, H, W).
        output: the class that the maps explain, the same for all five.
    """
    images = patch_images(image_nchw)
    found = maps(images, torch.full((len(images),), output, dtype=torch.int64))
    height, width = found.shape[1:]
    shift = measure_shift(MapLayout("NCHW", int(height), int(width)), found[:, None])
    return shift is not None and shift.follows
