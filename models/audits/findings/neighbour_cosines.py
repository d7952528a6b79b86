"""Cosine similarities of images to the other images by the features of a network, a block of images at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_REFERENCES = 20_000
"""Images among which neighbours are looked for; of more, a sample, so that the time grows with the number of images only."""
BLOCK_ROWS = 1024
"""Images whose similarities are held at once."""


@dataclass(frozen=True)
class CosineBlock:
    """Similarities of some images to the references."""

    places: slice
    """Of the images among the compared rows."""
    cosines: NDArray[np.float32]
    """(B, R); minus infinity for the image itself."""
    references: NDArray[np.intp]
    """Places of the references among the compared rows, (R,)."""


def cosine_blocks(
    features: NDArray[np.floating[Any]], rows: NDArray[np.intp], generator: np.random.Generator
) -> Iterator[CosineBlock]:
    """Yield the similarities of all compared images, in their order.

    Args:
        features: of all images, (M, D).
        rows: images that are compared, with finite features, (N,).
        generator: samples the references.
    """
    references = np.arange(len(rows))
    if len(rows) > MAX_REFERENCES:
        references = np.sort(generator.choice(len(rows), MAX_REFERENCES, replace=False))
    units = unit_features(features[rows[references]])
    for start in range(0, len(rows), BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, len(rows)))
        cosines = unit_features(features[rows[block]]) @ units.T
        places = np.minimum(np.searchsorted(references, block), len(references) - 1)
        own = references[places] == block
        cosines[own, places[own]] = -np.inf
        yield CosineBlock(slice(start, start + len(block)), cosines, references)


def unit_features(features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return features (N, D) at unit length; zero for those without length."""
    chosen = np.asarray(features, np.float32)
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    return np.asarray(chosen / np.where(lengths > 0, lengths, 1), np.float32)
