"""Flips and changes of color that make images of one class look like another: digits, text, left and right, colors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import bootstrap_mean
from ...findings.out_of_fold import FoldedFeatures, assign_folds, out_of_fold
from ..effects.plan_steps import changed_section, section_yaml
from ..severity import severity_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from .....pipeline.plan.plan import Plan
    from ..dataset_table import DatasetTable
    from ..effects.changed_features import ChangingStep

MIN_IMAGES = 20
"""Images of a class that is examined."""
MIN_ACCURACY = 0.5
"""Share of a class that the classifier has to recognize without the change."""
MIN_INCREASE = 0.1
"""Share of a class that the change moves to another, at the lower end of its interval, above the share of third classes that it
moves there as well."""
CHANCE = 0.5
"""Share that moves by chance where there are two classes only and the change spoils the images."""
MAX_Q = 0.01


@dataclass(frozen=True)
class Predictions:
    """Classes of held-out images, as they are and changed."""

    rows: NDArray[np.intp]
    """Rows of the table."""
    labels: NDArray[np.int64]
    plain: NDArray[np.int64]
    changed: NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """A class whose changed images are classified as another."""

    number: int
    other: int
    rows: NDArray[np.intp]
    """Images of the class."""
    moved: NDArray[np.int64]
    """1 for those that the change moves to the other class, -1 for those that it moves away from it, else 0."""
    least: float
    """Mean of ``moved`` from which on it is reported."""
    p: float
    """Of the sign test (McNemar 1947)."""


def find_confusing_steps(
    table: DatasetTable, plan: Plan, changes: Sequence[tuple[ChangingStep, pa.Table]]
) -> list[Finding]:
    """Return a finding for each pair of classes that a step of the plan takes for each other.

    Args:
        table: of the dataset, with features.
        plan: with the steps.
        changes: steps, each with the features of images after it.
    """
    return [
        finding
        for changing, features in changes
        if (found := predictions_after(table, features)) is not None
        for finding in _findings(table, plan, changing, found)
    ]


def predictions_after(table: DatasetTable, changed: pa.Table) -> Predictions | None:
    """Classify images by a linear discriminant that is fitted to other, unchanged images; None with less than two large classes."""
    if table.features is None or not changed.num_rows:
        return None
    places = pc.index_in(changed["key"], value_set=_keys(table)).combine_chunks().to_numpy()
    numbers, sizes = np.unique(table.labels[places], return_counts=True)
    numbers = numbers[(numbers >= 0) & (sizes >= MIN_IMAGES)]
    known = np.isin(table.labels[places], numbers) & np.isfinite(table.features[places]).all(axis=1)
    if len(numbers) < 2 or not known.any():
        return None
    rows = places[known]
    values = changed["feature"].combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)[known]
    labels = np.searchsorted(numbers, table.labels[rows])
    folds = assign_folds(labels, table.generator("confusing steps"))
    folded = FoldedFeatures.of(table.features, rows, folds)
    plain, after = (
        numbers[out_of_fold(folded, labels, evaluated).argmax(axis=1)] for evaluated in (None, flat)
    )
    return Predictions(rows, table.labels[rows], plain, after)


def _keys(table: DatasetTable) -> pa.Array:
    import pyarrow as pa

    return pa.array(table.keys.tolist(), pa.string())


def confusions(found: Predictions) -> list[Confusion]:
    """Return for each class that is recognized the other class that its changed images are taken for most often."""
    numbers = np.unique(found.labels).tolist()
    return [one for number in numbers if (one := _confusion(found, number)) is not None]


def _confusion(found: Predictions, number: int) -> Confusion | None:
    from scipy.stats import binom

    own = found.labels == number
    plain, changed = found.plain[own], found.changed[own]
    wrong = changed[changed != number]
    if (plain == number).mean() < MIN_ACCURACY or not len(wrong):
        return None
    other = int(np.bincount(wrong).argmax())
    moved = (changed == other).astype(np.int64) - (plain == other)
    if moved.mean() < ((plain == number).mean() - (changed == number).mean()) / 2:
        return None
    third = ~np.isin(found.labels, (number, other))
    drawn = CHANCE
    if third.any():
        drawn = float((found.changed[third] == other).mean() - (found.plain[third] == other).mean())
    num_moves, num_gained = int(np.abs(moved).sum()), int((moved > 0).sum())
    p = float(binom.sf(num_gained - 1, num_moves, 0.5)) if num_moves else 1.0
    return Confusion(number, other, found.rows[own], moved, MIN_INCREASE + max(0.0, drawn), p)


def _findings(table: DatasetTable, plan: Plan, changing: ChangingStep, found: Predictions) -> list[Finding]:
    tested = confusions(found)
    adjusted = q_values(np.asarray([one.p for one in tested], np.float64)).tolist()
    clear = [(one, q) for one, q in zip(tested, adjusted, strict=True) if q <= MAX_Q]
    findings = []
    for one, q in clear:
        own, other = (str(table.class_names[number]) for number in (one.number, one.other))
        subject = f"{changing.name} {own} {other}"
        interval = bootstrap_mean(one.moved.astype(np.float64), table.generator(f"confusing steps {subject}"))
        low, high = interval or (0.0, 1.0)
        if low < one.least:
            continue
        of_class = found.labels == one.number
        after, before = (
            int((predicted[of_class] == one.other).sum()) for predicted in (found.changed, found.plain)
        )
        increase = float(one.moved.mean())
        findings.append(
            Finding(
                id=finding_id("plan_effect", f"confusion {subject}"),
                kind="plan_effect",
                severity=severity_of("plan_effect", "confusion", increase),
                class_name=own,
                class_number=one.number,
                group=None,
                sentence=f"{changing.step.title} makes '{own}' look like '{other}': of {len(one.rows):,} images, {after:,} are "
                f"classified as '{other}' {changing.phrase}, {before:,} as they are.",
                effect=Effect(increase, "share of the class", low, high),
                null=Null(0.0, one.p, q),
                num_images=len(one.rows),
                num_concerned=int((one.moved > 0).sum()),
                keys=table.keys_of(one.rows[one.moved > 0][:MAX_KEYS]),
                advice=Advice(
                    f"Leave {changing.step.title} out, unless both classes are to be recognized {changing.phrase}.",
                    _without(plan, changing),
                ),
            )
        )
    return findings


def _without(plan: Plan, changing: ChangingStep) -> str:
    step = changing.step
    specs = changed_section(
        getattr(plan, step.section), lambda number, _: () if number == step.number else None
    )
    return section_yaml({step.section: specs})
