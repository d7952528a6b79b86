"""Whether more images would help: the error of a probe on growing parts of the data, extrapolated to twice as many.

The error of networks falls with the number of images as ``a n**-b + c`` (Hestness et al., "Deep learning scaling is
predictable, empirically", 2017, section 3). The curve of a linear classifier of frozen features says what more images would
bring to that classifier; a network that is fine-tuned may gain more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import Advice, Effect, Finding, Null, finding_id
from ...findings.out_of_fold import NUM_FOLDS, FoldedFeatures, assign_folds, out_of_fold
from ..severity import severity_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MIN_EACH = 40
"""Images of the smallest class."""
MAX_ROWS = 8192
"""Of larger data, a sample with at most an equal share of it from each class: fitting takes time."""
SHARES = (0.125, 0.25, 0.5, 1.0)
NUM_REPEATS = 5
"""Parts of each size; the whole is divided into folds so many times."""
NUM_BOOTSTRAP = 400
NOTABLE = 0.01
"""Smallest decrease of the error worth a finding above a note."""


@dataclass(frozen=True)
class LearningCurve:
    """Errors by number of images, and the error expected with twice as many."""

    sizes: tuple[int, ...]
    errors: NDArray[np.float64]
    """Balanced error of each repeat, (sizes, repeats)."""
    doubled: float
    low: float
    high: float
    """Where 95 % of the decreases lie if the repeats are drawn again; other images would vary more."""

    @property
    def error(self) -> float:
        """Mean error with all images."""
        return float(self.errors[-1].mean())


def measure_curve(table: DatasetTable) -> LearningCurve | None:
    """Measure the learning curve of the labelled images; None without features or with few images."""
    if table.features is None:
        return None
    usable = (table.labels >= 0) & np.isfinite(table.features).all(axis=1)
    numbers, sizes = np.unique(table.labels[usable], return_counts=True)
    if len(numbers) < 2 or sizes.min() < MIN_EACH:
        return None
    generator = table.generator("learning curve")
    most = max(MIN_EACH, MAX_ROWS // len(numbers))
    rows = np.sort(
        np.concatenate(
            [
                generator.permutation(np.flatnonzero(usable & (table.labels == number)))[:most]
                for number in numbers
            ]
        )
    )
    labels = np.searchsorted(numbers, table.labels[rows])
    features = table.features[rows]
    errors = np.array(
        [[_error(features, labels, share, generator) for _ in range(NUM_REPEATS)] for share in SHARES]
    )
    fitted_share = (NUM_FOLDS - 1) / NUM_FOLDS
    counts = np.array(SHARES) * len(rows) * fitted_share
    gains = np.sort(
        [
            _gain(counts, errors[np.arange(len(SHARES))[:, None], drawn].mean(axis=1))
            for drawn in generator.integers(0, NUM_REPEATS, (NUM_BOOTSTRAP, len(SHARES), NUM_REPEATS))
        ]
    )
    low, high = np.quantile(gains, (0.025, 0.975)).tolist()
    gain = _gain(counts, errors.mean(axis=1))
    return LearningCurve(
        tuple(int(each) for each in np.round(counts)), errors, float(errors[-1].mean()) - gain, low, high
    )


def find_learning_curve(table: DatasetTable, curve: LearningCurve | None) -> list[Finding]:
    """Return a finding about the gain expected from twice as many images; empty without a curve."""
    if curve is None:
        return []
    gain = curve.error - curve.doubled
    helps = gain >= NOTABLE and curve.low > 0
    points = ", ".join(
        f"{error:.3f} with {size:,}"
        for size, error in zip(curve.sizes, curve.errors.mean(axis=1), strict=True)
    )
    return [
        Finding(
            id=finding_id("learning_curve", ""),
            kind="learning_curve",
            severity=severity_of("learning_curve", "helps" if helps else "hardly helps"),
            class_name=None,
            class_number=-1,
            group=None,
            sentence=f"The balanced error of a linear classifier of the features is {points} images; twice as many would lower it "
            f"by about {gain:.3f} ({curve.low:.3f} to {curve.high:.3f} between repeats).",
            effect=Effect(gain, "decrease of the error", curve.low, curve.high),
            null=Null(0.0),
            num_images=int((table.labels >= 0).sum()),
            num_concerned=0,
            keys=(),
            advice=Advice(
                "More images of these classes would help."
                if helps
                else "More images of the same kind would hardly help this classifier; better labels, other features or fine-tuning may."
            ),
        )
    ]


def _error(
    features: NDArray[np.float32], labels: NDArray[np.int64], share: float, generator: np.random.Generator
) -> float:
    """Return the balanced error, each image predicted by a classifier of a share of the other folds' images."""
    chosen = np.zeros(len(labels), np.bool_)
    for number in range(int(labels.max()) + 1):
        own = generator.permutation(np.flatnonzero(labels == number))
        chosen[own[: max(NUM_FOLDS, round(share * len(own)))]] = True
    folded = FoldedFeatures.of(features, np.flatnonzero(chosen), assign_folds(labels[chosen], generator))
    predicted = out_of_fold(folded, labels[chosen]).argmax(axis=1)
    right = predicted == labels[chosen]
    recalls = np.bincount(labels[chosen], weights=right) / np.bincount(labels[chosen])
    return float(1 - recalls.mean())


def _gain(sizes: NDArray[np.float64], errors: NDArray[np.float64]) -> float:
    """Return the decrease of ``a n**-b + c`` from the largest size to twice that; the fit is by least squares over a grid of b.

    For each b, a >= 0 and c >= 0 are the solution of a linear problem.
    """
    from scipy.optimize import nnls

    best, gain = np.inf, 0.0
    for exponent in np.linspace(0.1, 1.5, 29):
        powers = (sizes / sizes[-1]) ** -exponent
        (factor, _), residual = nnls(np.column_stack([powers, np.ones_like(powers)]), errors)
        if residual < best:
            best, gain = residual, float(factor * (1 - 2.0**-exponent))
    return gain
