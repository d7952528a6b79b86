"""How many images each class has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ..severity import severity_of

if TYPE_CHECKING:
    from ..dataset_table import DatasetTable

MIN_RATIO = 3.0
"""Ratio of the largest to the smallest class from which on classes are imbalanced, as `lightwell init` has it."""
WEIGHTS = "class_weights: balanced      # in train.yaml\n"


def find_class_balance(table: DatasetTable) -> list[Finding]:
    """Return a finding if the largest class with readable images is much larger than the smallest."""
    labels = table.labels[table.is_readable & (table.labels >= 0)]
    numbers, counts = np.unique(labels, return_counts=True)
    if len(numbers) < 2 or counts.max() < MIN_RATIO * counts.min():
        return []
    smallest, largest = int(numbers[counts.argmin()]), int(numbers[counts.argmax()])
    ratio = float(counts.max() / counts.min())
    rows = np.flatnonzero(table.is_readable & (table.labels == smallest))
    name = str(table.class_names[smallest])
    sentence = (
        f"Classes are imbalanced: {table.class_names[largest]} has {counts.max():,} images, {name} has {counts.min():,} "
        f"({ratio:.1f} times fewer)."
    )
    return [
        Finding(
            id=finding_id("class_balance", ""),
            kind="class_balance",
            severity=severity_of("class_balance", "ratio", ratio),
            class_name=name,
            class_number=smallest,
            group=None,
            sentence=sentence,
            effect=Effect(ratio, "ratio of class sizes"),
            null=Null(None),
            num_images=len(labels),
            num_concerned=len(rows),
            keys=table.keys_of(rows[:MAX_KEYS]),
            advice=Advice("Weigh rare classes higher, and report the balanced accuracy.", WEIGHTS),
        )
    ]
