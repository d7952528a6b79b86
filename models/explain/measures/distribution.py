"""Distribution of a map's evidence: centre of mass, entropy, concentration, peak, and whether there is any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .upsampling import Size

EMPTY = 1e-6
"""A map is empty if its largest value is at most this fraction of the logit: rounding, not evidence."""
TIE = 1e-6
"""Cells whose values differ by at most this fraction of the largest are tied: float32 sums of channels differ as much."""


@dataclass(frozen=True, slots=True)
class Usable:
    """Which maps can be measured; every map is exactly one of measurable, empty and not finite."""

    finite: NDArray[np.bool_]
    empty: NDArray[np.bool_]
    """Finite, without positive evidence."""
    tied: NDArray[np.bool_]
    """Not empty, but several cells hold the largest value, so that there is no peak."""

    @property
    def measurable(self) -> NDArray[np.bool_]:
        """Maps with positive evidence."""
        return np.asarray(self.finite & ~self.empty)


def find_usable(maps: NDArray[Any], scores: NDArray[Any] | None = None) -> Usable:
    """Find the maps that are empty, tied or not finite.

    Args:
        maps: (N, h, w), before or after the ReLU.
        scores: (N,), logits of the explained classes, which set the scale of emptiness; None compares with zero.
    """
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).astype(np.float64)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(flat).all(axis=1), np.bool_)
    flat = np.where(finite[:, None], flat, 0)
    largest = flat.max(axis=1, initial=0)
    scale = 0 if scores is None else np.abs(scores.astype(np.float64))
    empty = finite & (largest <= EMPTY * scale)
    num_largest = (flat >= (largest * (1 - TIE))[:, None]).sum(axis=1)
    return Usable(finite, empty, finite & ~empty & (num_largest > 1))


def centres_of_mass(maps: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y (N,) of the centre of mass of non-negative maps, 0 (left, top) to 1, from the centres of cells."""
    shares = _cell_shares(maps).reshape(maps.shape)
    height, width = maps.shape[1:]
    across, down = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return shares.sum(axis=1) @ across, shares.sum(axis=2) @ down


def entropies(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Return the entropy (N,) in nats of non-negative maps, each divided by its sum: 0 for one cell, log(h w) if uniform.

    This is the complexity of Bhatt et al., "Evaluating and Aggregating Feature-based Model Explanations" (IJCAI 2020),
    equation 3, of the small map.
    """
    shares = _cell_shares(maps)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(0 - (shares * logs).sum(axis=1))


def concentrations(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Return one minus the entropy divided by that of a uniform map: 0 (uniform) to 1 (one cell); NaN for 1 x 1 maps."""
    cells = maps.shape[1] * maps.shape[2]
    return np.clip(1 - entropies(maps) / (math.log(cells) if cells > 1 else math.nan), 0, 1)


def peaks(maps: NDArray[Any], image_size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y (N,) in pixels of each map's peak: the centre of the cell with the largest value.

    Bilinear interpolation is largest at the centre of a cell. The argmax over pixels of an upsampled map is within half a
    pixel, except in cells at the edge of the image, whose outer half is flat: there it depends on the reading order.
    """
    height, width = maps.shape[1:]
    cell = maps.reshape(len(maps), height * width).argmax(axis=1)
    return (cell % width + 0.5) * image_size[1] / width, (cell // width + 0.5) * image_size[0] / height


def _cell_shares(maps: NDArray[Any]) -> NDArray[np.float64]:
    """Divide each map by its sum: (N, h * w); NaN for a map without evidence."""
    flat = maps.reshape(len(maps), maps.shape[1] * maps.shape[2]).astype(np.float64)
    mass = flat.sum(axis=1, keepdims=True)
    return flat / np.where(mass > 0, mass, np.nan)
