"""Images that resemble no others: their features are farther from those of their neighbours than is usual in their class."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.neighbour_cosines import MAX_REFERENCES
from ..severity import severity_of
from .feature_distances import neighbour_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

NEAREST = 10
"""Rank of the near neighbour (Ramaswamy et al., "Efficient algorithms for mining outliers from large data sets", 2000)."""
FAR_SHARE = 0.1
"""Rank of the far neighbour as a share of the images: strange images of one kind are neighbours of each other, as far as there
are fewer."""
MIN_IMAGES = 100
"""With fewer images none is an outlier."""
MIN_OF_CLASS = 30
"""Images of a class from which on its distances have a distribution of their own."""
MAX_Q = 0.05
"""Share of the reported images that may be usual ones."""
UPPER_QUARTILE = 0.6745
"""Upper quartile of the normal distribution, in standard deviations from the median."""


def find_outliers(table: DatasetTable) -> list[Finding]:
    """Return a finding about the images that resemble no others, the strangest first; empty without features."""
    if table.features is None:
        return []
    rows = np.flatnonzero(np.isfinite(table.features).all(axis=1))
    if len(rows) < MIN_IMAGES:
        return []
    num_references = min(len(rows), MAX_REFERENCES)
    ranks = (NEAREST, max(NEAREST, round(FAR_SHARE * num_references)))
    distances = neighbour_distances(table.features, rows, ranks, table.generator("outliers"))
    scores = np.stack([standardised(np.log(each), table.labels[rows]) for each in distances.T])
    strangeness = scores.max(axis=0)
    adjusted = q_values(_p_values(strangeness))
    chosen = np.flatnonzero(adjusted <= MAX_Q)
    if not len(chosen):
        return []
    chosen = chosen[np.argsort(-strangeness[chosen], kind="stable")]
    share = len(chosen) / len(rows)
    low, high = wilson(len(chosen), len(rows)) or (None, None)
    return [
        Finding(
            id=finding_id("outlier", "features"),
            kind="outlier",
            severity=severity_of("outlier", "share of images", share),
            class_name=None,
            class_number=-1,
            group=None,
            sentence=f"{len(chosen):,} of {len(rows):,} images {'resembles' if len(chosen) == 1 else 'resemble'} no others: by the "
            f"features of the network, the distance to the {NEAREST}th nearest image, or to the nearest {100 * FAR_SHARE:.0f} % of all, exceeds "
            f"what is usual in the class by {strangeness[chosen[-1]]:.1f} or more standard deviations"
            f"{_classes(table, rows[chosen])}.",
            effect=Effect(share, "share of images", low, high),
            null=Null(MAX_Q * share, q=float(adjusted[chosen].max())),
            num_images=len(rows),
            num_concerned=len(chosen),
            keys=table.keys_of(rows[chosen[:MAX_KEYS]]),
            advice=Advice(
                "Look at these images: drop those that do not belong to the dataset, and collect more like those that do."
            ),
        )
    ]


def standardised(values: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return values in standard deviations from the median of their class, both by quartiles, which outliers hardly change.

    Images without a label and of small classes are compared with all. Where the upper half is wider than the lower one, the
    deviation is that of the upper half, over all classes.
    """
    found = _standardised(values, values)
    for number, size in zip(*np.unique(labels, return_counts=True), strict=True):
        if number >= 0 and size >= MIN_OF_CLASS:
            own = labels == number
            found[own] = _standardised(values[own], values[own])
    return found / max(1.0, float(np.quantile(found, 0.75)) / UPPER_QUARTILE)


def _standardised(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    low, middle, high = np.quantile(others, (0.25, 0.5, 0.75))
    deviation = (high - low) / (2 * UPPER_QUARTILE)
    return (values - middle) / deviation if deviation > 0 else np.zeros(len(values))


def _p_values(strangeness: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values of the larger of two scores, by Bonferroni: logarithms of distances to neighbours are nearly normal."""
    from scipy.stats import norm

    return np.minimum(1.0, 2 * np.asarray(norm.sf(strangeness), np.float64))


def _classes(table: DatasetTable, rows: NDArray[np.intp]) -> str:
    """Name the classes with most of some images."""
    labels = [label for label in table.labels[rows].tolist() if label >= 0]
    if not labels:
        return ""
    most = Counter(labels).most_common(3)
    named = ", ".join(f"{table.class_names[label]} ({count:,})" for label, count in most)
    return f"; most are labelled {named}" if len(set(labels)) > 3 else f"; they are labelled {named}"
