"""P-values under the hypothesis that classes are exchangeable: labels are permuted within the data.

Two kinds of statistics. Counts of a class have a known distribution under permutation, the hypergeometric one, so that their
p-values are exact and may be as small as a test over many classes and regions requires. Everything else is resampled; its
p-values are at least ``1 / (number of permutations + 1)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK_ROWS = 4_000_000
"""Permuted labels that are held at once."""


def count_p_values(
    counts: NDArray[np.int64], class_sizes: NDArray[np.int64], totals: NDArray[np.int64], num_images: int
) -> NDArray[np.float64]:
    """Return the probability that a class of permuted labels has at least so many of the marked images.

    Under permutation, the marked images of a class are drawn without replacement, so their number is hypergeometric
    (Fisher's exact test, one-sided). It stays exact if images are marked for exceeding an order statistic of the *other*
    classes: the precedence test (Nelson, Technometrics 1963).

    Args:
        counts: marked images by class and statistic, shape (C, S).
        class_sizes: images by class, shape (C,).
        totals: marked images of all classes; shape (S,), or (C, S) if the mark differs by class.
        num_images: images of all classes.
    """
    from scipy.stats import hypergeom

    found = hypergeom.sf(counts - 1, num_images, np.broadcast_to(totals, counts.shape), class_sizes[:, None])
    return np.clip(np.asarray(found, np.float64), 0.0, 1.0)


def add_one_p_values(
    observed: NDArray[np.floating[Any]], null: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """Return p-values of large statistics: ``(1 + number of null values >= observed) / (1 + number of null values)``.

    Phipson and Smyth, SAGMB 2010, equation 2; never zero.

    Args:
        observed: any shape (...).
        null: the same statistics of permuted data, shape (B, ...).
    """
    as_large = (null >= observed).sum(axis=0)
    return np.asarray((1 + as_large) / (1 + len(null)), np.float64)


def class_means(
    values: NDArray[np.floating[Any]], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return the mean of each class, shape (C, S); NaN for a class without images.

    Args:
        values: by image and statistic, shape (N, S), finite.
        labels: class of each image, 0 to ``num_classes - 1``, shape (N,).
        num_classes: number of classes.
    """
    (means,) = _means(values, labels[None], num_classes)
    return np.asarray(means, np.float64)


def permuted_class_means(
    values: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    num_classes: int,
    num_permutations: int,
    generator: np.random.Generator,
) -> Iterator[NDArray[np.float64]]:
    """Yield the class means of permuted labels in chunks of shape (b, C, S); each chunk is one matrix product."""
    size = max(1, CHUNK_ROWS // max(1, len(labels)))
    for start in range(0, num_permutations, size):
        count = min(size, num_permutations - start)
        yield _means(values, generator.permuted(np.tile(labels, (count, 1)), axis=1), num_classes)


def _means(
    values: NDArray[np.floating[Any]], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return class means for several labellings (B, N): a sparse indicator matrix (B * C, N) times the values."""
    from scipy.sparse import csc_array

    count, num = labels.shape
    rows = (labels.T + num_classes * np.arange(count)).ravel()  # image by image: its class in each labelling
    starts = np.arange(num + 1) * count
    indicator = csc_array((np.ones(len(rows)), rows, starts), shape=(count * num_classes, num))
    sums = np.asarray(indicator @ np.asarray(values, np.float64))
    sizes = np.bincount(rows, minlength=count * num_classes)
    with np.errstate(invalid="ignore"):
        means: NDArray[np.float64] = sums / sizes[:, None]
    return means.reshape(count, num_classes, -1)
