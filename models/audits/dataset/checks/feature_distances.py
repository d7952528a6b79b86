"""Distances of images to their nearest neighbours by the features of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_REFERENCES = 20_000
"""Images among which neighbours are looked for; of more, a sample, so that the time grows with the number of images only."""
BLOCK_ROWS = 1024
"""Images whose distances are held at once."""
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
    references = rows
    if len(rows) > MAX_REFERENCES:
        references = rows[np.sort(generator.choice(len(rows), MAX_REFERENCES, replace=False))]
    units = unit_features(features, references)
    last = max(ranks)
    found = np.empty((len(rows), len(ranks)))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        cosines = unit_features(features, block) @ units.T
        places = np.minimum(np.searchsorted(references, block), len(references) - 1)
        own = references[places] == block
        cosines[own, places[own]] = -np.inf
        nearest = -np.sort(np.partition(-cosines, last - 1, axis=1)[:, :last], axis=1)
        chosen = nearest[:, np.asarray(ranks) - 1].astype(np.float64)
        found[start : start + BLOCK_ROWS] = np.sqrt(np.maximum(2 - 2 * chosen, LEAST**2))
    return found


def unit_features(features: NDArray[np.floating[Any]], rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the features of some rows at unit length; zero for those without length."""
    chosen = np.asarray(features[rows], np.float32)
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    return np.asarray(chosen / np.where(lengths > 0, lengths, 1), np.float32)
