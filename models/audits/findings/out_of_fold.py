"""Class probabilities of images by classifiers that were fitted without them, in blocks of bounded memory.

The classifiers are linear discriminants: their posterior has the form of logistic regression, and fitting takes one covariance
matrix. The matrices of all folds follow from one sum of products per fold, whatever the labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_FOLDS = 5
BLOCK_ROWS = 8192
"""Rows that are held in double precision at once."""


@dataclass(frozen=True)
class FoldedFeatures:
    """Features of images in folds, and the sums of products of their features."""

    features: NDArray[np.floating[Any]]
    """(M, D), of which some rows are used."""
    rows: NDArray[np.intp]
    """Rows that are used, (N,); finite."""
    folds: NDArray[np.int64]
    """Fold of each, (N,)."""
    center: NDArray[np.float64]
    """Mean feature, (D,), which is subtracted everywhere."""
    products: NDArray[np.float64]
    """Sum over the images of each fold of the products of their centered features, (folds, D, D)."""

    @classmethod
    def of(
        cls, features: NDArray[np.floating[Any]], rows: NDArray[np.intp], folds: NDArray[np.int64]
    ) -> FoldedFeatures:
        """Compute the sums; takes one product of the matrix of features with itself."""
        width = features.shape[1]
        starts = range(0, len(rows), BLOCK_ROWS)
        total = np.zeros(width)
        for start in starts:
            total += features[rows[start : start + BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
        empty = np.zeros((NUM_FOLDS, width, width))
        found = cls(features, rows, folds, total / max(1, len(rows)), empty)
        for part, block in found.blocks():
            for fold in range(NUM_FOLDS):
                own = block[folds[part] == fold]
                empty[fold] += own.T @ own
        return found

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Yield the places of some images and their centered features."""
        for start in range(0, len(self.rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            yield part, self.features[self.rows[part]].astype(np.float64) - self.center


def assign_folds(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Assign images to folds at random, evenly within each class."""
    folds = np.empty(len(labels), np.int64)
    for number in np.unique(labels):
        rows = np.flatnonzero(labels == number)
        folds[rows] = generator.permutation(np.arange(len(rows)) % NUM_FOLDS)
    return folds


def out_of_fold(
    folded: FoldedFeatures, labels: NDArray[np.int64], evaluated: NDArray[np.floating[Any]] | None = None
) -> NDArray[np.float64]:
    """Return class probabilities (N, C) of linear discriminant classifiers, each fitted on the other folds.

    The covariance within classes is shrunk as by Ledoit and Wolf ("A well-conditioned estimator for large-dimensional covariance
    matrices", 2004, section 3.3).

    Args:
        folded: images and their folds.
        labels: classes 0 to C - 1, shape (N,).
        evaluated: features of the same images after a change, (N, D), whose probabilities are returned instead.
    """
    num_classes, width = int(labels.max()) + 1, len(folded.center)
    cells = folded.folds * num_classes + labels
    flat = np.zeros((NUM_FOLDS * num_classes, width))
    for part, block in folded.blocks():
        order = np.argsort(cells[part], kind="stable")
        present, first = np.unique(cells[part][order], return_index=True)
        flat[present] += np.add.reduceat(block[order], first, axis=0)
    sums = flat.reshape(NUM_FOLDS, num_classes, width)
    counts = np.bincount(cells, minlength=len(flat)).reshape(NUM_FOLDS, num_classes)
    sizes = (counts.sum(axis=0) - counts).astype(np.float64)
    means = (sums.sum(axis=0) - sums) / np.maximum(sizes, 1)[..., None]
    fourth = np.zeros(NUM_FOLDS)
    for part, block in folded.blocks():
        for fold in range(NUM_FOLDS):
            others = folded.folds[part] != fold
            residual = block[others] - means[fold, labels[part][others]]
            fourth[fold] += (np.einsum("nd,nd->n", residual, residual) ** 2).sum()
    total = folded.products.sum(axis=0)
    weights, offsets = [], []
    for fold in range(NUM_FOLDS):
        weighted = means[fold] * sizes[fold][:, None]
        scatter = total - folded.products[fold] - weighted.T @ means[fold]
        solved = np.linalg.solve(_shrunk(scatter, sizes[fold].sum(), fourth[fold]), means[fold].T)
        with np.errstate(divide="ignore"):
            prior = np.log(sizes[fold] / sizes[fold].sum())
        weights.append(solved)
        offsets.append(prior - 0.5 * np.einsum("cd,dc->c", means[fold], solved))
    found = np.empty((len(labels), num_classes))
    for part, block in folded.blocks():
        seen = block if evaluated is None else evaluated[part].astype(np.float64) - folded.center
        for fold in range(NUM_FOLDS):
            left = folded.folds[part] == fold
            scores = seen[left] @ weights[fold] + offsets[fold]
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            found[part][left] = scores / scores.sum(axis=1, keepdims=True)
    return found


def _shrunk(scatter: NDArray[np.float64], num: float, fourth: float) -> NDArray[np.float64]:
    """Return a covariance, shrunk towards a multiple of the identity.

    Args:
        scatter: sum of the products of centered features, (D, D).
        num: number of images.
        fourth: sum of the fourth powers of their lengths.
    """
    width = len(scatter)
    covariance = scatter / num
    scale = np.trace(covariance) / width
    squared = (covariance**2).sum()
    distance = (squared - width * scale**2) / width
    error = min((fourth / num - squared) / (width * num), distance)
    share = error / distance if error > 0 else 0.0
    shrunk = (1 - share) * covariance
    shrunk.flat[:: width + 1] += share * scale + 1e-9 * (scale + 1e-12)
    return np.asarray(shrunk)
