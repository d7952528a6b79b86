"""Labels that the features of a network contradict, and the class that they suggest instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.label_noise import FLIPPED, NoisyLabels, suspect_labels
from ...findings.out_of_fold import NUM_FOLDS
from ..severity import severity_of
from .fixes import FixRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MIN_LABELS = 100
"""With fewer labelled images nothing is suspected."""


@dataclass(frozen=True)
class SuspectedLabels:
    """Rows of a table with suspected labels, the most certain first."""

    rows: NDArray[np.intp]
    suggested: NDArray[np.int64]
    """Class number that the features suggest for each."""
    examined: NDArray[np.int64]
    """Images of each class by number that were compared."""
    noisy: NoisyLabels


def suspected_rows(table: DatasetTable) -> SuspectedLabels | None:
    """Compare the labels with a classifier fitted without their images; None without features or with few labels."""
    if table.features is None:
        return None
    usable = (table.labels >= 0) & np.isfinite(table.features).all(axis=1)
    numbers, sizes = np.unique(table.labels[usable], return_counts=True)
    numbers = numbers[sizes >= 2 * NUM_FOLDS]
    rows = np.flatnonzero(usable & np.isin(table.labels, numbers))
    if len(numbers) < 2 or len(rows) < MIN_LABELS:
        return None
    labels = np.searchsorted(numbers, table.labels[rows])
    noisy = suspect_labels(table.features, rows, labels, table.generator("suspected labels"))
    if noisy is None:
        return None
    return SuspectedLabels(
        rows[noisy.places], numbers[noisy.suggested], np.bincount(table.labels[rows]), noisy
    )


def find_suspected_labels(table: DatasetTable, found: SuspectedLabels | None) -> list[Finding]:
    """Return a finding for each class whose labels are suspected, the class with the most first."""
    if found is None:
        return []
    labels = table.labels[found.rows]
    precision, recall = found.noisy.precision, found.noisy.recall
    findings = []
    for number, count in Counter(labels.tolist()).most_common():
        own = labels == number
        rows, name = found.rows[own], table.class_names[number]
        num = int(found.examined[number])
        low, high = wilson(count, num) or (None, None)
        most = Counter(found.suggested[own].tolist()).most_common(3)
        instead = ", ".join(f"{table.class_names[other]} ({times:,})" for other, times in most)
        findings.append(
            Finding(
                id=finding_id("suspected_label", name),
                kind="suspected_label",
                severity=severity_of("suspected_label", "share of images"),
                class_name=name,
                class_number=int(number),
                group=None,
                sentence=f"{count:,} of {num:,} images labelled {name} look like another class to the network: {instead}. When "
                f"{100 * FLIPPED:.0f} % of the labels were changed for comparison, {100 * recall:.0f} % of these were suspected, and "
                f"{100 * precision:.0f} % of those suspected had been changed.",
                effect=Effect(count / num, "share of the class", low, high),
                null=Null(None),
                num_images=num,
                num_concerned=count,
                keys=table.keys_of(rows[:MAX_KEYS]),
                advice=Advice(
                    "Look at these images. fixes.csv suggests a class for each with the action review; write relabel where the "
                    "suggestion is right, then run lightwell index --apply."
                ),
            )
        )
    return findings


def fix_suspected_labels(table: DatasetTable, found: SuspectedLabels | None) -> list[FixRow]:
    """Return a row for each suspected label, with the suggested class."""
    if found is None:
        return []
    return [
        FixRow(
            key=str(table.keys[row]),
            action="review",
            value=str(table.class_names[number]),
            reason=f"labelled {table.class_names[table.labels[row]]}, looks like {table.class_names[number]}",
            finding_id=finding_id("suspected_label", table.class_names[table.labels[row]]),
        )
        for row, number in zip(found.rows.tolist(), found.suggested.tolist(), strict=True)
    ]
