"""Distances of images to their nearest neighbours by the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...findings.neighbour_cosines import cosine_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST = 1e-3
"""Smallest distance: that of copies, up to rounding."""


def neighbour_distances(
    features: NDArray[np.floating[Any]],
    rows: NDArray[np.intp],
    ranks: Sequence[int],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Return distances to neighbours of some ranks, (N, ranks), between features of unit length: 0 to 2.

    Args:
        features: of all images, (M, D).
        rows: images that are compared, with finite features, (N,).
        ranks: 1 for the nearest neighbour; above 0 and below N and `MAX_REFERENCES`.
        generator: samples the references.
    """
    last = max(ranks)
    found = np.empty((len(rows), len(ranks)))
    for block in cosine_blocks(features, rows, generator):
        nearest = -np.sort(np.partition(-block.cosines, last - 1, axis=1)[:, :last], axis=1)
        chosen = nearest[:, np.asarray(ranks) - 1].astype(np.float64)
        found[block.places] = np.sqrt(np.maximum(2 - 2 * chosen, LEAST**2))
    return found
