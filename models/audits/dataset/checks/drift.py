"""Measures, file properties and classes that are distributed differently in the splits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import Z_95, wilson
from ..severity import severity_of
from .duplicate_groups import training_split
from .matching_augmentation import augmentation_yaml
from .table_columns import category_columns, number_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MAX_Q = 0.01
MIN_ROWS = 20
"""Smallest number of images of a split with which it is compared."""
MIN_SHIFT = 0.06
"""Distance of the area under the curve from 1/2: 0.2 standard deviations of normal distributions (Cohen 1988)."""
MIN_SHARE = 0.05
"""Difference of the share of one value."""
MIN_EXPECTED = 5.0
"""Rarer values are not compared (Cochran 1954)."""


@dataclass(frozen=True)
class Shift:
    """How a number is distributed in one split compared with another."""

    area: float
    """Probability that an image of the first split has the larger value, ties counted half."""
    low: float
    high: float
    """95 % interval (Hanley and McNeil, Radiology 1982, equation 2)."""
    p: float
    """Of the two-sided test of Mann and Whitney (1947), normal approximation with ties."""


@dataclass(frozen=True)
class ShareDifference:
    """The value of a category whose share differs most."""

    value: int
    first: float
    second: float
    low: float
    high: float
    """95 % interval of the difference (Newcombe, Statistics in Medicine 1998, method 10)."""
    p: float
    """Of the chi-squared test of all values."""


def find_drift(table: DatasetTable) -> list[Finding]:
    """Return findings about each evaluation split: one for measures, one for each property of files and for the classes."""
    training = training_split(table)
    if training is None:
        return []
    columns, categories = number_columns(table), category_columns(table)
    if (table.labels >= 0).any():
        numbers = np.where(table.labels >= 0, table.labels, len(table.class_names))
        categories["class"] = numbers, (*table.class_names, "no label")
    in_training = np.asarray([name == training for name in table.splits], np.bool_)
    found: list[Finding] = []
    for split in sorted({str(name) for name in table.splits if name is not None} - {training}):
        in_split = np.asarray([name == split for name in table.splits], np.bool_)
        shifts = {
            name: compare_numbers(values[in_split], values[in_training]) for name, values in columns.items()
        }
        differences = {
            name: compare_shares(numbers[in_split], numbers[in_training], len(names))
            for name, (numbers, names) in categories.items()
        }
        tests = [shift.p if shift else np.nan for shift in (*shifts.values(), *differences.values())]
        adjusted = q_values(np.asarray(tests, np.float64)).tolist()
        found += _number_findings(table, columns, shifts, adjusted, (split, training, in_split, in_training))
        for (name, difference), q in zip(differences.items(), adjusted[len(shifts) :], strict=True):
            if difference is not None and q <= MAX_Q:
                numbers, names = categories[name]
                rows = in_split, in_training, in_split & (numbers == difference.value)
                found += _share_finding(table, (split, training, name, names), difference, q, rows)
    return found


def compare_numbers(first: NDArray[np.float64], second: NDArray[np.float64]) -> Shift | None:
    """Compare the numbers of two splits; None with too few or only equal ones. NaN counts as missing."""
    from scipy.special import ndtr
    from scipy.stats import rankdata

    first, second = first[~np.isnan(first)], second[~np.isnan(second)]
    m, n = len(first), len(second)
    if min(m, n) < MIN_ROWS:
        return None
    values = np.concatenate([first, second])
    ranks = rankdata(values)
    area = (float(ranks[:m].sum()) - m * (m + 1) / 2) / (m * n)
    ties = np.unique(values, return_counts=True)[1].astype(np.float64)
    spread = (m + n + 1 - float((ties**3 - ties).sum()) / ((m + n) * (m + n - 1))) / (12 * m * n)
    if spread <= 0:
        return None
    p = 2 * float(ndtr(-abs(area - 0.5) / math.sqrt(spread)))
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (m - 1) * (q1 - area**2) + (n - 1) * (q2 - area**2)) / (m * n)
    half = Z_95 * math.sqrt(max(variance, 0.0))
    return Shift(area, max(0.0, area - half), min(1.0, area + half), p)


def compare_shares(
    first: NDArray[np.int64], second: NDArray[np.int64], num_values: int
) -> ShareDifference | None:
    """Compare how often values 0 to ``num_values - 1`` occur in two splits; None with too few images or values."""
    from scipy.stats import chi2

    counts = np.stack([np.bincount(numbers, minlength=num_values) for numbers in (first, second)]).astype(
        np.float64
    )
    totals = counts.sum(axis=1, keepdims=True)
    if totals.min() < MIN_ROWS:
        return None
    expected = totals * counts.sum(axis=0) / totals.sum()
    usable = np.flatnonzero(expected.min(axis=0) >= MIN_EXPECTED)
    if not len(usable):
        return None
    rest = np.setdiff1d(np.arange(num_values), usable)
    tested, wanted = (
        np.column_stack([values[:, usable], values[:, rest].sum(axis=1)]) for values in (counts, expected)
    )
    tested, wanted = tested[:, wanted.min(axis=0) > 0], wanted[:, wanted.min(axis=0) > 0]
    if tested.shape[1] < 2:
        return None
    statistic = float(((tested - wanted) ** 2 / wanted).sum())
    shares = counts / totals
    value = int(usable[np.argmax(np.abs(shares[0] - shares[1])[usable])])
    one, other = shares[:, value].tolist()
    low, high = _difference_interval(counts[:, value].astype(int).tolist(), totals[:, 0].astype(int).tolist())
    return ShareDifference(value, one, other, low, high, float(chi2.sf(statistic, tested.shape[1] - 1)))


def _difference_interval(counts: list[int], totals: list[int]) -> tuple[float, float]:
    (low1, high1), (low2, high2) = (
        wilson(count, total) or (0.0, 1.0) for count, total in zip(counts, totals, strict=True)
    )
    one, other = (count / total for count, total in zip(counts, totals, strict=True))
    below, above = math.hypot(one - low1, high2 - other), math.hypot(high1 - one, other - low2)
    return one - other - below, one - other + above


def _number_findings(
    table: DatasetTable,
    columns: dict[str, NDArray[np.float64]],
    shifts: dict[str, Shift | None],
    adjusted: list[float],
    splits: tuple[str, str, NDArray[np.bool_], NDArray[np.bool_]],
) -> list[Finding]:
    split, training, in_split, in_training = splits
    tests = list(zip(shifts.items(), adjusted, strict=False))
    clear = [
        (name, shift, q)
        for (name, shift), q in tests
        if shift is not None and q <= MAX_Q and abs(shift.area - 0.5) >= MIN_SHIFT
    ]
    if not clear:
        return []
    clear.sort(key=lambda found: (-abs(found[1].area - 0.5), found[0]))
    name, shift, q = clear[0]
    parts = [
        f"{other} ({'larger' if one.area > 0.5 else 'smaller'} in {100 * max(one.area, 1 - one.area):.0f} % of pairs)"
        for other, one, _ in clear[:3]
    ]
    values = np.nan_to_num(columns[name], nan=float(np.nanmedian(columns[name])))
    order = np.argsort(-values if shift.area > 0.5 else values, kind="stable")
    return [
        Finding(
            id=finding_id("drift", f"{split} measures"),
            kind="drift",
            severity=severity_of("drift", "area from 1/2", abs(shift.area - 0.5)),
            class_name=None,
            class_number=-1,
            group=f"split = {split}",
            sentence=f"Images of {split} differ from those of {training} in {len(clear):,} of {len(shifts):,} measures, "
            f"most in {', '.join(parts)}; 50 % of pairs of an image of each were to be expected.",
            effect=Effect(shift.area, f"share of pairs with larger {name}", shift.low, shift.high),
            null=Null(0.5, shift.p, q),
            num_images=int((in_split | in_training).sum()),
            num_concerned=int(in_split.sum()),
            keys=table.keys_of(order[in_split[order]][:MAX_KEYS]),
            other_keys=table.keys_of(order[::-1][in_training[order[::-1]]][:MAX_KEYS]),
            advice=Advice(
                f"Split at random within classes and groups, or train with augmentations that cover {split}.",
                augmentation_yaml([one for one, _, _ in clear], *_values(columns, in_training, in_split)),
            ),
        )
    ]


def _values(
    columns: dict[str, NDArray[np.float64]], *rows: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[np.float64]], ...]:
    """Return the known values of some rows by name, for each choice of rows."""
    return tuple(
        {name: values[chosen & np.isfinite(values)] for name, values in columns.items()} for chosen in rows
    )


def _share_finding(
    table: DatasetTable,
    names: tuple[str, str, str, tuple[str, ...]],
    difference: ShareDifference,
    q: float,
    rows: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]],
) -> list[Finding]:
    split, training, column, values = names
    in_split, in_training, concerned = rows
    distance = abs(difference.first - difference.second)
    if distance < MIN_SHARE:
        return []
    value = values[difference.value]
    return [
        Finding(
            id=finding_id("drift", f"{split} {column}"),
            kind="drift",
            severity=severity_of("drift", "difference of shares", distance),
            class_name=value if column == "class" else None,
            class_number=difference.value if column == "class" and value in table.class_names else -1,
            group=f"split = {split}",
            sentence=f"The distribution of {column} differs between {split} and {training}, most for {value}: "
            f"{100 * difference.first:.1f} % of {split}, {100 * difference.second:.1f} % of {training}.",
            effect=Effect(
                difference.first - difference.second, "difference of shares", difference.low, difference.high
            ),
            null=Null(0.0, difference.p, q),
            num_images=int((in_split | in_training).sum()),
            num_concerned=int(concerned.sum()),
            keys=table.keys_of(np.flatnonzero(concerned)[:MAX_KEYS]),
            advice=Advice("Split at random within classes and groups, or weight the images."),
        )
    ]
