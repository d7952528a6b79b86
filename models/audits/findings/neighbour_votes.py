"""Classes of the nearest neighbours of images by the features of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 10
PRIOR = 0.1
"""Votes that each class has beforehand, so that no probability is zero (Lidstone smoothing)."""
MAX_REFERENCES = 20_000
"""Images that vote; of more, a sample, so that the time grows with the number of images only."""
BLOCK_ROWS = 1024


def neighbour_probabilities(
    features: NDArray[np.floating[Any]],
    rows: NDArray[np.intp],
    labels: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.float64]:
    """Return smoothed shares of the classes among the nearest other images by cosine similarity, (N, C).

    Args:
        features: of all images, (M, D).
        rows: images that are compared, with finite features, (N,).
        labels: classes 0 to C - 1 of these, (N,).
        generator: samples the references.
    """
    voters = np.arange(len(rows))
    if len(rows) > MAX_REFERENCES:
        voters = np.sort(generator.choice(len(rows), MAX_REFERENCES, replace=False))
    num_votes = min(NEIGHBOURS, len(voters) - 1)
    references = _units(features[rows[voters]])
    num_classes = int(labels.max()) + 1
    votes = np.full((len(rows), num_classes), PRIOR)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
        cosines = _units(features[rows[block]]) @ references.T
        places = np.minimum(np.searchsorted(voters, block), len(voters) - 1)
        own = voters[places] == block
        cosines[own, places[own]] = -np.inf
        nearest = np.argpartition(-cosines, num_votes - 1, axis=1)[:, :num_votes]
        np.add.at(votes, (block[:, None], labels[voters[nearest]]), 1.0)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True), np.float64)


def _units(features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(lengths > 0, lengths, 1), np.float32)
