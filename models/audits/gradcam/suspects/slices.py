"""Slices of the images, by file, pixels and prediction, with more errors or more unusual evidence than others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import wilson
from ...findings.slices import Slice, conditions_of, worst_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .image_table import ImageTable

MIN_IMAGES = 100
MIN_FLAGS = 10
"""Smallest number of errors, or of images with unusual evidence."""
MAX_P = 0.01
MIN_RATIO = 2.0
"""Smallest ratio of the rate in a slice to that of all images."""
MIN_EXCESS = 0.1
UNUSUAL = 0.05
"""Share of the images whose evidence counts as unusual: those furthest from the mean map of their class."""


def slice_suspects(table: ImageTable) -> list[Finding]:
    """Return the slices with more errors, and those with more unusual evidence, than chance within classes allows for."""
    labelled, mapped = np.flatnonzero(table.labels >= 0), np.flatnonzero(table.has_map)
    wrong = table.labels[labelled] != table.predictions[labelled]
    found = _search(table, labelled, wrong, "errors", "of the images are predicted wrongly")
    found += _search(
        table,
        mapped,
        unusual_evidence(table, mapped),
        "evidence",
        "of the images have their evidence at an unusual place",
    )
    return found


def unusual_evidence(table: ImageTable, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Mark the images whose map is furthest (Hellinger distance) from the mean map of their class."""
    if not len(rows):
        return np.zeros(0, np.bool_)
    shares = table.shares[rows].reshape(len(rows), -1)
    _, numbers = np.unique(table.classes[rows], return_inverse=True)
    means = np.zeros((int(numbers.max()) + 1, shares.shape[1]))
    np.add.at(means, numbers, shares)
    means /= np.bincount(numbers)[:, None]
    distances = 1 - (np.sqrt(shares) * np.sqrt(means)[numbers]).sum(axis=1)
    limit = np.partition(distances, len(rows) - 1 - int(UNUSUAL * len(rows)))[
        len(rows) - 1 - int(UNUSUAL * len(rows))
    ]
    return np.asarray(distances > limit, np.bool_)


def _search(
    table: ImageTable, rows: NDArray[np.intp], flags: NDArray[np.bool_], purpose: str, happens: str
) -> list[Finding]:
    if len(rows) < MIN_IMAGES or flags.sum() < MIN_FLAGS:
        return []
    columns = {name: values[rows] for name, values in table.facts.items()}
    columns["prediction"] = np.array(
        [table.name_of(number) for number in table.predictions[rows].tolist()], object
    )
    slices = worst_slices(
        conditions_of(columns), flags, table.classes[rows], table.generator(f"slices {purpose}")
    )
    rate = float(flags.mean())
    return [
        _finding(table, rows, flags, each, purpose, happens)
        for each in slices
        if each.p <= MAX_P
        and any(condition.column != "prediction" for condition in each.conditions)
        and flags[each.rows].mean() >= max(MIN_RATIO * rate, rate + MIN_EXCESS)
    ]


def _finding(
    table: ImageTable,
    rows: NDArray[np.intp],
    flags: NDArray[np.bool_],
    each: Slice,
    purpose: str,
    happens: str,
) -> Finding:
    inside, rate = each.rows, float(flags.mean())
    concerned = rows[inside & flags]
    concerned = concerned[np.argsort(-table.confidences[concerned], kind="stable")]
    share, num = float(flags[inside].mean()), int(inside.sum())
    low, high = wilson(len(concerned), num) or (None, None)
    return Finding(
        id=finding_id("slice", f"{purpose} {each.text}"),
        kind="slice",
        severity="low",
        class_name=None,
        class_number=-1,
        group=each.text,
        sentence=f"Where {each.text}, {100 * share:.0f} % {happens} ({len(concerned):,} of {num:,}); of all images "
        f"{100 * rate:.1f} %.",
        effect=Effect(share, "share of images", low, high),
        null=Null(rate, each.p, each.p),
        num_images=num,
        num_concerned=len(concerned),
        keys=table.keys_of(concerned[:MAX_KEYS]),
        other_keys=table.keys_of(rows[inside & ~flags][:MAX_KEYS]),
        advice=Advice("Compare these images with the others; collect or augment images of this kind."),
    )
