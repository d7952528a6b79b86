"""Images that the report shows: their selection, and their pixels as input to the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..findings.finding import Finding
    from .records import Predictions

MAX_FINDINGS = 30
"""Findings that are shown with images, the most severe first; the others are listed."""
MAX_OWN, MAX_OTHER = 6, 2
"""Images shown with a finding: those that show it, and those to compare with."""


def finding_keys(finding: Finding) -> tuple[str, ...]:
    """Return the keys of the images that are shown with a finding."""
    return finding.keys[:MAX_OWN] + finding.other_keys[:MAX_OTHER]


def choose_keys(records: Predictions, findings: Sequence[Finding], num: int) -> tuple[str, ...]:
    """Return the keys of all images that the report shows; none if ``num`` is 0."""
    if not num:
        return ()
    rows = [row for rows in choose_rows(records, num).values() for row in rows]
    shown = [key for finding in findings[:MAX_FINDINGS] for key in finding_keys(finding)]
    known = set(records.keys.tolist())
    return tuple(
        dict.fromkeys([*(str(records.keys[row]) for row in rows), *(key for key in shown if key in known)])
    )


def choose_rows(records: Predictions, num: int) -> dict[str, list[int]]:
    """Select about ``num`` rows: a third most confident errors, a third other errors, the rest correct.

    The selection is deterministic.
    """
    third = -(-num // 3)  # rounded up, so that a gallery of one or two images shows errors
    wrong = np.flatnonzero(records.wrong)
    wrong = wrong[np.argsort(-records.confidences[wrong], kind="stable")]
    sure, others = wrong[:third], wrong[third:]
    others = evenly_spaced(others, min(third, num - len(sure)))
    num_right = num - len(sure) - len(others)
    right = sample_balanced(np.flatnonzero(records.right), records.labels, num_right)
    chosen = {"sure": sure.tolist(), "wrong": others.tolist(), "right": right}
    rest = num - sum(len(rows) for rows in chosen.values())
    chosen["unlabelled"] = evenly_spaced(np.flatnonzero(~records.labelled), rest).tolist()
    return chosen


def evenly_spaced(rows: NDArray[np.intp], num: int) -> NDArray[np.intp]:
    """Select at most ``num`` rows, evenly spaced, in order."""
    if len(rows) <= num:
        return rows
    return rows[np.linspace(0, len(rows) - 1, num).round().astype(np.intp)] if num else rows[:0]


def sample_balanced(rows: NDArray[np.intp], labels: NDArray[np.int64], num: int) -> list[int]:
    """Select at most ``num`` rows, balanced over classes, or over evenly spaced classes if there are more."""
    classes, sizes = np.unique(labels[rows], return_counts=True)
    counts = np.zeros(len(classes), np.int64)
    while (left := min(num, len(rows)) - int(counts.sum())) > 0:
        counts[evenly_spaced(np.flatnonzero(counts < sizes), left)] += 1
    chosen = [evenly_spaced(rows[labels[rows] == c], int(n)) for c, n in zip(classes, counts, strict=True)]
    return sorted(int(row) for some in chosen for row in some)


@dataclass(frozen=True)
class Picture:
    """An image as the model saw it."""

    pixels: NDArray[np.uint8]
    """(H, W, 3)."""
    boxes: NDArray[np.float32] | None = None
    """(n, 4): x0, y0, x1, y1 in pixels."""


def class_name(number: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or ``class N`` if it has none."""
    if number < 0:
        return "no label"
    return classes[number] if number < len(classes) else f"class {number}"
