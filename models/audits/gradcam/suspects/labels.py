"""Errors at high confidence, and labels that the images' features contradict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.label_noise import NoisyLabels, suspect_labels
from ...findings.out_of_fold import NUM_FOLDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

CONFIDENT = 0.9
"""Softmax probability from which on an error counts as confident."""
MIN_ERRORS = 4
MAX_Q = 0.01
MIN_LABELS = 100
"""Smallest number of labelled images among which labels are suspected."""


def confident_errors(table: ImageTable) -> list[Finding]:
    """Return a finding for each predicted class with more confident errors than the probabilities allow for.

    If the probabilities were right, the errors of these images would have a Poisson binomial distribution; its upper tail
    is bounded by that of the Poisson distribution of the same mean.
    """
    from scipy.stats import poisson

    sure = (table.labels >= 0) & (table.confidences >= CONFIDENT)
    wrong = sure & (table.labels != table.predictions)
    classes = np.unique(table.predictions[sure])
    counts = np.array([int((wrong & (table.predictions == number)).sum()) for number in classes], np.int64)
    expected = np.array(
        [float((1 - table.confidences[sure & (table.predictions == number)]).sum()) for number in classes]
    )
    p_values = np.asarray(poisson.sf(counts - 1, expected), np.float64)
    adjusted = q_values(p_values)
    found = []
    for position in np.flatnonzero((adjusted <= MAX_Q) & (counts >= MIN_ERRORS)).tolist():
        number, count = int(classes[position]), int(counts[position])
        num_sure = int((sure & (table.predictions == number)).sum())
        rows = np.flatnonzero(wrong & (table.predictions == number))
        rows = rows[np.argsort(-table.confidences[rows], kind="stable")]
        name = table.name_of(number)
        label, most = Counter(table.labels[rows].tolist()).most_common(1)[0]
        low, high = wilson(count, num_sure) or (None, None)
        found.append(
            Finding(
                id=finding_id("confident_error", name),
                kind="confident_error",
                severity="low",
                class_name=name,
                class_number=number,
                group=None,
                sentence=f"{count:,} images are predicted as {name} with a probability of at least {CONFIDENT:g} and have "
                f"another label, {most:,} of them {table.name_of(label)}; by their probabilities "
                f"{expected[position]:.1f} errors were to be expected.",
                effect=Effect(count / num_sure, "share of confident predictions", low, high),
                null=Null(
                    float(expected[position]) / num_sure, float(p_values[position]), float(adjusted[position])
                ),
                num_images=num_sure,
                num_concerned=count,
                keys=table.keys_of(rows),
                advice=Advice(
                    "Check the labels of these images: fixes.csv lists them with the action review; write relabel where the predicted "
                    "class is right, then run lightwell index --apply. Where the labels are right, calibrate the probabilities."
                ),
            )
        )
    return found


@dataclass(frozen=True)
class SuspectedLabels:
    """Rows of a table whose labels the features contradict."""

    rows: NDArray[np.intp]
    """The most certain first."""
    suggested: NDArray[np.int64]
    """Class number that the features suggest for each."""
    num_examined: int
    noisy: NoisyLabels


def contradicted_labels(table: ImageTable) -> SuspectedLabels | None:
    """Compare labels with a classifier fitted without their images; None with few labels, or if most would be false."""
    usable = (table.labels >= 0) & np.isfinite(table.features).all(axis=1)
    numbers, inverse, sizes = np.unique(table.labels[usable], return_inverse=True, return_counts=True)
    large = sizes >= 2 * NUM_FOLDS
    usable[np.flatnonzero(usable)[~large[inverse]]] = False
    rows = np.flatnonzero(usable)
    if large.sum() < 2 or len(rows) < MIN_LABELS:
        return None
    numbers, labels = np.unique(table.labels[rows], return_inverse=True)
    noisy = suspect_labels(table.features, rows, labels, table.generator("labels"))
    return (
        None
        if noisy is None
        else SuspectedLabels(rows[noisy.places], numbers[noisy.suggested], len(rows), noisy)
    )


def suspected_labels(table: ImageTable) -> list[Finding]:
    """Return one finding with the labels that a classifier of the features contradicts most; empty if there are none."""
    found = table.suspected_labels
    if found is None:
        return []
    noisy = found.noisy
    pairs = Counter(zip(table.labels[found.rows].tolist(), found.suggested.tolist(), strict=True))
    (label, other), most = pairs.most_common(1)[0]
    low, high = wilson(len(found.rows), found.num_examined) or (None, None)
    return [
        Finding(
            id=finding_id("suspected_label", ""),
            kind="suspected_label",
            severity="note",
            class_name=None,
            class_number=-1,
            group=None,
            sentence=f"The features of {len(found.rows):,} images suggest another label, most often {table.name_of(other)} "
            f"instead of {table.name_of(label)} ({most:,} images). When some labels were changed for comparison, "
            f"{100 * noisy.recall:.0f} % of the changed ones were found, and {100 * noisy.precision:.0f} % of those "
            "found had been changed.",
            effect=Effect(len(found.rows) / found.num_examined, "share of images", low, high),
            null=Null(None),
            num_images=found.num_examined,
            num_concerned=len(found.rows),
            keys=table.keys_of(found.rows),
            advice=Advice(
                "Look at these images. fixes.csv suggests a class for each with the action review; write relabel where the "
                "suggestion is right, then run lightwell index --apply."
            ),
        )
    ]
