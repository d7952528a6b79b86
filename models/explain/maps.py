"""Class activation maps (N, h, w) at the size of an image, and whether they are empty; `measures` has the rest."""

from __future__ import annotations

import torch
from torch.nn import functional

_EMPTY_THRESHOLD = 1e-6


def upsample(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Upsample maps (N, h, w) to (N, height, width), bilinear with half-pixel centres, as OpenCV does."""
    size = (height, width)
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def is_empty(maps: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return which maps are empty: their maximum is at most a millionth of the logit's absolute value.

    Args:
        maps: (N, h, w), non-negative.
        scores: logits of the explained classes, (N,), as ``CamResult.scores``.

    Returns:
        bool (N,).
    """
    return maps.flatten(1).amax(1) <= _EMPTY_THRESHOLD * scores.float().abs()
