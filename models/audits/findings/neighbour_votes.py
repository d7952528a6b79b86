"""Classes of the nearest neighbours of images by the features of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .neighbour_cosines import cosine_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 10
PRIOR = 0.1
"""Votes that each class has beforehand, so that no probability is zero (Lidstone smoothing)."""


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
    num_classes = int(labels.max()) + 1
    votes = np.full((len(rows), num_classes), PRIOR)
    for block in cosine_blocks(features, rows, generator):
        num_votes = min(NEIGHBOURS, len(block.references) - 1)
        nearest = np.argpartition(-block.cosines, num_votes - 1, axis=1)[:, :num_votes]
        places = np.arange(len(rows))[block.places]
        np.add.at(votes, (places[:, None], labels[block.references[nearest]]), 1.0)
    return np.asarray(votes / votes.sum(axis=1, keepdims=True), np.float64)
