"""Measures of class activation maps: small, not negative, (N, h, w).

Bilinear enlargement is linear, so what a border holds of the enlarged map is computed from the small one.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_BLANK_SHARE = 1e-6


def upsample(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Enlarge maps (N, h, w) to (N, height, width), bilinear with half-pixel centres, as OpenCV does."""
    size = (height, width)
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _pixel_weights(
    cells: int, pixels: int, margin: int, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the rows of the one-dimensional enlargement over all pixels, and over those inside the margins."""
    basis = torch.eye(cells, dtype=torch.float64, device=like.device)[None]
    enlarged = functional.interpolate(basis, size=pixels, mode="linear", align_corners=False)[0]
    return enlarged.sum(1), enlarged[:, margin : pixels - margin].sum(1)


def border_mass(maps: torch.Tensor, border: float = 0.1, height: int = 224, width: int = 224) -> torch.Tensor:
    """Give the share of each enlarged map's mass that lies in a band along the image's edge.

    Exactly ``upsample(maps, height, width)`` summed over the band and divided by its whole sum, from the
    small
    map: enlargement is linear and separable, so the sum over a rectangle is ``r @ map @ c``.

    Args:
        maps: (N, h, w), not negative.
        border: width of the band as a share of each side, above 0 and below 0.5; rounded to whole pixels.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        float32 (N,), 0..1; NaN for a map without mass. An even map gives about ``1 - (1 - 2 * border) **
        2``.
    """
    if not 0 < border < 0.5:
        raise ValueError(f"border: expected a share above 0 and below 0.5, got {border}; 0.1 is usual")
    rows, inner_rows = _pixel_weights(maps.shape[1], height, round(border * height), maps)
    columns, inner_columns = _pixel_weights(maps.shape[2], width, round(border * width), maps)
    exact = maps.double()
    whole = torch.einsum("nhw,h,w->n", exact, rows, columns)
    inner = torch.einsum("nhw,h,w->n", exact, inner_rows, inner_columns)
    return (1 - inner / whole).float()


def concentration(maps: torch.Tensor) -> torch.Tensor:
    """Say how concentrated each map is: ``1 + sum(p log p) / log(h w)`` with p the map over its sum.

    One minus the entropy as a share of its maximum: 0 for an even map, 1 for a single cell.

    Args:
        maps: (N, h, w), not negative.

    Returns:
        float32 (N,), 0..1; NaN for a map without mass or of one cell.
    """
    flat = maps.double().flatten(1)
    shares = flat / flat.sum(1, keepdim=True)
    most = math.log(flat.shape[1]) if flat.shape[1] > 1 else math.nan
    return (1 + torch.xlogy(shares, shares).sum(1) / most).float()


def is_empty(maps: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Tell which maps hold no evidence: their greatest value is at most a millionth of the logit's size.

    Args:
        maps: (N, h, w), not negative.
        scores: logits of the explained classes, (N,), as ``CamResult.scores``.

    Returns:
        bool (N,).
    """
    return maps.flatten(1).amax(1) <= _BLANK_SHARE * scores.float().abs()


def peak(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Find the pixel where each enlarged map is greatest, for the pointing game.

    Args:
        maps: (N, h, w), not negative.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        int64 (N, 2), x and y as boxes have them; the first of equals in reading order; -1, -1 for a map
        without positive evidence, which so can never be a hit.
    """
    flat = upsample(maps.float(), height, width).flatten(1)
    value, place = flat.max(1)
    found = torch.stack((place % width, place // width), dim=1)
    return torch.where((value > 0)[:, None], found, -1)
