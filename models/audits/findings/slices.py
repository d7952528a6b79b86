"""Slices of a table in which something happens more often than elsewhere: conjunctions of one or two conditions.

Sagadeeva and Boehm, "SliceLine: fast, linear-algebra-based slice finding", SIGMOD 2021.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .nulls import add_one_p_values, count_p_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALPHA = 0.95
"""Weight of the rate against the size of a slice in its score."""
MIN_ROWS = 20
"""Smallest slice."""
NUM_BINS = 4
"""Bins of a column of numbers, of equal numbers of rows."""
MAX_VALUES = 10
"""Most frequent values of a column that become conditions."""
MIN_COMMON = 0.05
"""Share of the rows from which on a single value of a column of numbers, such as a JPEG quality, becomes a condition."""
NUM_PERMUTATIONS = 199
MAX_P_OF_PART = 0.001
"""A second condition has to make so much of a difference that chance alone would with at most this probability."""


@dataclass(frozen=True)
class Condition:
    """A condition on one column."""

    column: str
    text: str
    """For example ``format is PNG``."""
    rows: NDArray[np.bool_]
    """Whether each row meets it."""


@dataclass(frozen=True)
class Slice:
    """Rows that meet one or two conditions."""

    conditions: tuple[Condition, ...]
    score: float
    p: float
    """Probability that the best slice of permuted data scores as high."""

    @property
    def text(self) -> str:
        """The conditions in words."""
        return " and ".join(condition.text for condition in self.conditions)

    @property
    def rows(self) -> NDArray[np.bool_]:
        """Whether each row is in the slice."""
        return np.asarray(np.logical_and.reduce([condition.rows for condition in self.conditions]), np.bool_)


def conditions_of(columns: Mapping[str, NDArray[Any]]) -> list[Condition]:
    """Return the conditions on columns of numbers (NaN where unknown) or strings that enough rows meet, and not all."""
    found = []
    for name, values in columns.items():
        if values.dtype == object:
            texts, counts = np.unique([str(value) for value in values], return_counts=True)
            common = texts[np.argsort(-counts, kind="stable")][:MAX_VALUES].tolist()
            pairs = [(f"{name} is {text}", values.astype(str) == text) for text in common]
        else:
            pairs = _ranges(name, values.astype(np.float64))
        found += [
            Condition(name, text, np.asarray(rows, np.bool_))
            for text, rows in pairs
            if MIN_ROWS <= rows.sum() < len(rows)
        ]
    return found


def _ranges(name: str, values: NDArray[np.float64]) -> list[tuple[str, NDArray[np.bool_]]]:
    known = np.isfinite(values)
    different = np.unique(values[known])
    if len(different) <= NUM_BINS:
        return [(f"{name} is {value:g}", values == value) for value in different.tolist()]
    edges = np.unique(np.quantile(values[known], np.arange(1, NUM_BINS) / NUM_BINS))
    bins = np.where(known, np.searchsorted(edges, np.nan_to_num(values), side="left"), -1)
    limits = [-np.inf, *edges.tolist(), np.inf]
    ranges = [
        (_range_text(name, low, high), bins == n) for n, (low, high) in enumerate(itertools.pairwise(limits))
    ]
    numbers, counts = np.unique(values[known], return_counts=True)
    common = numbers[counts >= max(MIN_ROWS, MIN_COMMON * len(values))][:MAX_VALUES]
    return [(f"{name} is {value:.6g}", values == value) for value in common.tolist()] + ranges


def _range_text(name: str, low: float, high: float) -> str:
    if low == -np.inf:
        return f"{name} is at most {high:.4g}"
    return f"{name} is above {low:.4g}" + ("" if high == np.inf else f" and at most {high:.4g}")


def worst_slices(
    conditions: Sequence[Condition],
    flags: NDArray[np.bool_],
    strata: NDArray[np.int64],
    generator: np.random.Generator,
    num: int = 3,
) -> list[Slice]:
    """Return the slices with the highest scores, of two conditions only where both are needed; at most ``num``.

    The score of a slice S of n rows with rate e(S) is ``a (e(S) / e - 1) - (1 - a) (n / |S| - 1)`` with `ALPHA` as a
    (SliceLine, equation 1). Its p-value compares it with the highest scores of permuted flags, so that it holds for all slices
    at once; flags are permuted within strata, so that differences between strata alone give no slice.

    Args:
        conditions: by `conditions_of`.
        flags: what is to be explained, such as errors, shape (N,).
        strata: group of each row, such as its class.
        generator: for the permutations.
        num: number of slices.
    """
    if not conditions or not flags.any() or flags.all():
        return []
    table = np.stack([condition.rows for condition in conditions], axis=1).astype(np.float32)
    sizes = table.T @ table
    names = np.array([condition.column for condition in conditions])
    allowed = np.triu((names[:, None] != names) & (sizes >= MIN_ROWS))
    np.fill_diagonal(allowed, True)
    rate = float(flags.mean())

    def scores_of(chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        marked = table[chosen]
        rates = (marked.T @ marked) / np.maximum(sizes, 1)
        found = ALPHA * (rates / rate - 1) - (1 - ALPHA) * (len(flags) / np.maximum(sizes, 1) - 1)
        return np.where(allowed, found, -np.inf)

    scores = scores_of(flags)
    best = np.argsort(-scores, axis=None, kind="stable")
    best = best[scores.ravel()[best] > 0]
    if not len(best):
        return []
    null = np.array([scores_of(each).max() for each in permuted_within(flags, strata, generator)])
    found: list[Slice] = []
    for place in best.tolist():
        first, second = divmod(place, len(conditions))
        parts = (conditions[first],) if first == second else (conditions[first], conditions[second])
        score = float(scores.ravel()[place])
        new = Slice(parts, score, float(add_one_p_values(np.array(score), null)))
        is_new = all((new.rows & other.rows).sum() <= new.rows.sum() / 2 for other in found)
        if is_new and (first == second or all(adds(new, part, flags) for part in parts)):
            found.append(new)
        if len(found) == num:
            break
    return found


def adds(new: Slice, part: Condition, flags: NDArray[np.bool_]) -> bool:
    """Return whether a slice has more flags than a random part of the same size of one of its conditions would."""
    inside, total = int((flags & new.rows).sum()), int((flags & part.rows).sum())
    p = count_p_values(
        np.array([[inside]]), np.array([int(new.rows.sum())]), np.array([total]), int(part.rows.sum())
    )
    return bool(p[0, 0] <= MAX_P_OF_PART)


def permuted_within(
    flags: NDArray[np.bool_], strata: NDArray[np.int64], generator: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Return `NUM_PERMUTATIONS` copies of flags, permuted within each stratum."""
    order = np.argsort(strata, kind="stable")
    found = []
    for _ in range(NUM_PERMUTATIONS):
        shuffled = np.lexsort((generator.random(len(flags)), strata))
        permuted = np.empty_like(flags)
        permuted[shuffled] = flags[order]
        found.append(permuted)
    return found
