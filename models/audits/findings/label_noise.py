"""Labels that disagree with the features of their images (confident learning, Northcutt et al., JAIR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUM_FOLDS = 5
FLIPPED = 0.05
"""Share of the labels that are changed to measure how well changed labels are found."""
MIN_PRECISION = 0.5
"""Suspected labels are reported if at least this share of such suspicions would be right."""


@dataclass(frozen=True)
class NoisyLabels:
    """Rows with suspected labels."""

    rows: NDArray[np.intp]
    """The most certain first."""
    suggested: NDArray[np.int64]
    """Class that the features suggest for each."""
    precision: float
    """Of labels changed on purpose: share of those suspected that had been changed; a lower bound, as other labels may be wrong."""
    recall: float
    """Share of the changed labels that were suspected."""


def suspect_labels(
    features: NDArray[np.floating[Any]], labels: NDArray[np.int64], generator: np.random.Generator
) -> NoisyLabels | None:
    """Find labels that contradict a classifier fitted without their image; None if such findings would mostly be wrong.

    Args:
        features: finite, shape (N, D).
        labels: classes 0 to C - 1, each with at least `NUM_FOLDS` images, shape (N,).
        generator: chooses folds and changed labels.
    """
    folds = assign_folds(labels, generator)
    num_classes = int(labels.max()) + 1
    changed = generator.permutation(len(labels))[: max(1, round(FLIPPED * len(labels)))]
    noisy = labels.copy()
    noisy[changed] = (labels[changed] + generator.integers(1, num_classes, len(changed))) % num_classes
    margins, _ = disagreement(out_of_fold(features, noisy, folds), noisy)
    is_changed = np.zeros(len(labels), np.bool_)
    is_changed[changed] = True
    order = np.argsort(-margins, kind="stable")
    order = order[margins[order] > 0]
    precisions = np.cumsum(is_changed[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(precisions >= MIN_PRECISION)
    if not len(good):
        return None
    last = int(good[-1])
    least = margins[order[last]]
    margins, suggested = disagreement(out_of_fold(features, labels, folds), labels)
    rows = np.argsort(-margins, kind="stable")
    rows = rows[margins[rows] >= least]
    recall = float(is_changed[order[: last + 1]].sum() / len(changed))
    return NoisyLabels(rows, suggested[rows], float(precisions[last]), recall) if len(rows) else None


def assign_folds(labels: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """Assign images to folds at random, evenly within each class."""
    folds = np.empty(len(labels), np.int64)
    for number in np.unique(labels):
        rows = np.flatnonzero(labels == number)
        folds[rows] = generator.permutation(np.arange(len(rows)) % NUM_FOLDS)
    return folds


def out_of_fold(
    features: NDArray[np.floating[Any]],
    labels: NDArray[np.int64],
    folds: NDArray[np.int64],
    evaluated: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float64]:
    """Return class probabilities (N, C) of linear discriminant classifiers, each fitted on the other folds.

    Their posterior has the form of logistic regression, and fitting takes one covariance matrix, shrunk as by Ledoit and
    Wolf (2004).

    Args:
        features: finite, shape (N, D).
        labels: classes 0 to C - 1, shape (N,).
        folds: number of the fold of each image.
        evaluated: features of the same images after a change, whose probabilities are returned instead.
    """
    from sklearn.covariance import ledoit_wolf

    num_classes = int(labels.max()) + 1
    found = np.empty((len(labels), num_classes))
    values = np.asarray(features, np.float64)
    others = values if evaluated is None else np.asarray(evaluated, np.float64)
    for fold in range(NUM_FOLDS):
        fitted, left = folds != fold, folds == fold
        sizes = np.bincount(labels[fitted], minlength=num_classes)
        means = np.zeros((num_classes, values.shape[1]))
        np.add.at(means, labels[fitted], values[fitted])
        means /= np.maximum(sizes, 1)[:, None]
        covariance, _ = ledoit_wolf(values[fitted] - means[labels[fitted]], assume_centered=True)
        covariance += 1e-9 * (np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
        weights = np.linalg.solve(covariance, means.T)
        with np.errstate(divide="ignore"):
            offsets = np.log(sizes / sizes.sum()) - 0.5 * np.einsum("cd,dc->c", means, weights)
        scores = others[left] @ weights + offsets
        scores -= scores.max(axis=1, keepdims=True)
        found[left] = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return found


def disagreement(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how far each label is contradicted, and the class suggested instead.

    A class is suggested if its probability reaches the mean probability that images with this label have of it
    (Northcutt et al., equation 2); of several, the most probable. The first value is the difference of both probabilities,
    or 0 where the label itself is suggested, or none.
    """
    rows = np.arange(len(labels))
    own = probabilities[rows, labels]
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    thresholds = sums / np.maximum(np.bincount(labels, minlength=probabilities.shape[1]), 1)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    contradicted = (confident[rows, suggested] >= 0) & (suggested != labels)
    return np.where(contradicted, np.maximum(probabilities[rows, suggested] - own, 0), 0.0), suggested
