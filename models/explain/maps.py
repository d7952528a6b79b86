"""Statistics of class activation maps (N, h, w): border mass, concentration, emptiness, peak.

Bilinear upsampling is linear, so the border mass of an upsampled map is computed from the small one.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

_EMPTY_THRESHOLD = 1e-6


def upsample(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Upsample maps (N, h, w) to (N, height, width), bilinear with half-pixel centres, as OpenCV does."""
    size = (height, width)
    return functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def _pixel_weights(
    cells: int, pixels: int, margin: int, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum the weights of one-dimensional upsampling per cell over all pixels, and over those inside the margins."""
    basis = torch.eye(cells, dtype=torch.float64, device=like.device)[None]
    enlarged = functional.interpolate(basis, size=pixels, mode="linear", align_corners=False)[0]
    return enlarged.sum(1), enlarged[:, margin : pixels - margin].sum(1)


def border_mass(maps: torch.Tensor, border: float = 0.1, height: int = 224, width: int = 224) -> torch.Tensor:
    """Return the fraction of each map's mass in a band along the image border.

    Equal to the sum of ``upsample(maps, height, width)`` over the band divided by its total sum. It is computed from the
    small map: upsampling is linear and separable, so the sum over a rectangle is ``r @ map @ c``.

    Args:
        maps: (N, h, w), non-negative.
        border: width of the band as a fraction of each side, above 0 and below 0.5; rounded to whole pixels.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        float32 (N,), 0..1; NaN for a map without mass. A uniform map has about ``1 - (1 - 2 * border) ** 2``.
    """
    if not 0 < border < 0.5:
        raise ValueError(f"border: expected a fraction above 0 and below 0.5, got {border}; 0.1 is usual")
    rows, inner_rows = _pixel_weights(maps.shape[1], height, round(border * height), maps)
    columns, inner_columns = _pixel_weights(maps.shape[2], width, round(border * width), maps)
    exact = maps.double()
    total = torch.einsum("nhw,h,w->n", exact, rows, columns)
    inner = torch.einsum("nhw,h,w->n", exact, inner_rows, inner_columns)
    return (1 - inner / total).float()


def concentration(maps: torch.Tensor) -> torch.Tensor:
    """Return the concentration of each map: ``1 + sum(p log p) / log(h w)`` with p the map divided by its sum.

    This is one minus the normalised entropy: 0 for a uniform map, 1 for a single non-zero cell.

    Args:
        maps: (N, h, w), non-negative.

    Returns:
        float32 (N,), 0..1; NaN for a map without mass or with one cell.
    """
    flat = maps.double().flatten(1)
    shares = flat / flat.sum(1, keepdim=True)
    most = math.log(flat.shape[1]) if flat.shape[1] > 1 else math.nan
    return (1 + torch.xlogy(shares, shares).sum(1) / most).float()


def is_empty(maps: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return which maps are empty: their maximum is at most a millionth of the logit's absolute value.

    Args:
        maps: (N, h, w), non-negative.
        scores: logits of the explained classes, (N,), as ``CamResult.scores``.

    Returns:
        bool (N,).
    """
    return maps.flatten(1).amax(1) <= _EMPTY_THRESHOLD * scores.float().abs()


def peak(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the pixel with the maximum of each upsampled map, for the pointing game.

    Args:
        maps: (N, h, w), non-negative.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        int64 (N, 2), x and y in pixels; the first in reading order of equal values; -1, -1 for a map without positive
        values, which is never a hit.
    """
    flat = upsample(maps.float(), height, width).flatten(1)
    value, index = flat.max(1)
    found = torch.stack((index % width, index // width), dim=1)
    return torch.where((value > 0)[:, None], found, -1)
