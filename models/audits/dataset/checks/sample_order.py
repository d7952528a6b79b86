"""Measures and labels that depend on the position of an image: neighbours are more alike than images of a random order."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import Z_95
from ..severity import severity_of
from .table_columns import number_columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

MAX_Q = 0.01
MIN_ROWS = 20
"""Smallest number of images of a split, class and folder."""
MIN_CORRELATION = 0.1
NUMBER = re.compile(r"(\d+)")


def find_sample_order(table: DatasetTable) -> list[Finding]:
    """Return findings about the order of measures within classes and of labels within splits.

    Orders are that of the index and that of the numbers in the file names. Measures are tested within split, class and
    folder, so that folders or rows sorted by class have no finding.
    """
    orders = {"of the index": np.arange(len(table)), "of the file names": _name_order(table)}
    strata = _codes(_codes(table.splits), table.labels, _folders(table))
    columns = number_columns(table)
    tests = [
        (order_name, name, lag_one(values, strata, order))
        for order_name, order in orders.items()
        for name, values in columns.items()
    ]
    adjusted = q_values(
        np.asarray([math.erfc(z / math.sqrt(2)) / 2 for _, _, (_, z, _) in tests], np.float64)
    )
    clear = [
        (correlation, name, order_name, z, num, float(q))
        for (order_name, name, (correlation, z, num)), q in zip(tests, adjusted, strict=True)
        if q <= MAX_Q and correlation >= MIN_CORRELATION
    ]
    found = [] if not clear else [_measure_finding(table, columns, strata, orders, clear)]
    return found + _label_findings(table, orders)


def lag_one(
    values: NDArray[np.float64], strata: NDArray[np.int64], order: NDArray[np.intp]
) -> tuple[float, float, int]:
    """Return the correlation of the ranks of neighbours within strata, its z-score and the number of images.

    Under permutation within strata, the sum over the n - 1 neighbours of products of standardised ranks has the mean -1 and
    about the variance n (Wald and Wolfowitz 1943).

    Args:
        values: NaN counts as missing.
        strata: number of each row.
        order: rows in their order.
    """
    from scipy.stats import rankdata

    rows = order[~np.isnan(values[order])]
    rows = rows[np.argsort(strata[rows], kind="stable")]
    _, starts, sizes = np.unique(strata[rows], return_index=True, return_counts=True)
    total, count, num_strata = 0.0, 0, 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if size >= MIN_ROWS:
            ranks = rankdata(values[rows[start : start + size]])
            deviation = float(ranks.std())
            if deviation:
                ranks = (ranks - ranks.mean()) / deviation
                total += float(ranks[:-1] @ ranks[1:])
                count, num_strata = count + size, num_strata + 1
    if not count:
        return 0.0, 0.0, 0
    return (total + num_strata) / count, (total + num_strata) / math.sqrt(count), count


def label_runs(labels: NDArray[np.int64]) -> tuple[float, float, float]:
    """Return the share of neighbours with equal labels, its mean and its z-score under permutation.

    The number of equal neighbours has the mean ``sum n_c (n_c - 1) / n``; its variance follows from that of the number of
    runs (Wald and Wolfowitz 1940; Barton and David, Biometrika 1957).
    """
    n = len(labels)
    sizes = np.unique(labels, return_counts=True)[1].astype(np.float64)
    squares, cubes = float((sizes**2).sum()), float((sizes**3).sum())
    mean = (squares - n) / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - float(n) ** 3) / (n * n * (n - 1))
    equal = int((labels[1:] == labels[:-1]).sum())
    z = (equal - mean) / math.sqrt(variance) if variance > 0 else 0.0
    return equal / (n - 1), mean / (n - 1), z


def _measure_finding(
    table: DatasetTable,
    columns: dict[str, NDArray[np.float64]],
    strata: NDArray[np.int64],
    orders: dict[str, NDArray[np.intp]],
    clear: list[tuple[float, str, str, float, int, float]],
) -> Finding:
    correlation, name, order_name, z, num, q = max(clear, key=lambda found: (found[0], found[1]))
    half = Z_95 * (1 - correlation**2) / math.sqrt(num)
    order = orders[order_name]
    order = order[np.argsort(strata[order], kind="stable")]
    steps = np.abs(np.diff(columns[name][order]))
    start = int(np.nanargmin(np.where(np.diff(strata[order]) == 0, steps, np.nan)))
    return Finding(
        id=finding_id("sample_order", "measures"),
        kind="sample_order",
        severity=severity_of("sample_order", "correlation", correlation),
        class_name=None,
        class_number=-1,
        group=None,
        sentence=f"Neighbours in the order {order_name} are alike within their class: the {name} of an image and the next "
        f"correlate with {correlation:.2f}, and {len({found[1] for found in clear}):,} of {len(columns):,} measures do.",
        effect=Effect(correlation, "rank correlation of neighbours", correlation - half, correlation + half),
        null=Null(0.0, math.erfc(z / math.sqrt(2)) / 2, q),
        num_images=num,
        num_concerned=num,
        keys=table.keys_of(order[start : start + MAX_KEYS // 4]),
        advice=Advice(
            "They may be shots of one scene or frames of one video: keep those in one split, and shuffle before training."
        ),
    )


def _label_findings(table: DatasetTable, orders: dict[str, NDArray[np.intp]]) -> list[Finding]:
    """Return a finding if labels are partly sorted; labels in one run per class are sorted on purpose."""
    splits = _codes(table.splits, _folders(table))
    tests = []
    for order_name, order in orders.items():
        labelled = order[table.labels[order] >= 0]
        labelled = labelled[np.argsort(splits[labelled], kind="stable")]
        for rows in np.split(labelled, np.flatnonzero(np.diff(splits[labelled])) + 1):
            labels = table.labels[rows]
            num_classes, num_runs = len(np.unique(labels)), 1 + int((np.diff(labels) != 0).sum())
            if len(rows) >= MIN_ROWS and 1 < num_classes < num_runs:
                tests.append((rows, order_name, *label_runs(labels)))
    if not tests:
        return []
    p_values = np.asarray([math.erfc(test[-1] / math.sqrt(2)) / 2 for test in tests], np.float64)
    adjusted = q_values(p_values)
    clear = [
        number
        for number, (_, _, equal, expected, _) in enumerate(tests)
        if adjusted[number] <= MAX_Q and equal - expected >= MIN_CORRELATION
    ]
    if not clear:
        return []
    best = max(clear, key=lambda number: tests[number][2] - tests[number][3])
    rows, order_name, equal, expected, _ = tests[best]
    half = Z_95 * math.sqrt(equal * (1 - equal) / len(rows))
    same = np.flatnonzero(np.diff(table.labels[rows]) == 0)
    return [
        Finding(
            id=finding_id("sample_order", "labels"),
            kind="sample_order",
            severity=severity_of("sample_order", "labels"),
            class_name=None,
            class_number=-1,
            group=None,
            sentence=f"Labels are partly sorted in the order {order_name}: {100 * equal:.0f} % of neighbours have the same "
            f"class, {100 * expected:.0f} % were to be expected of a random order.",
            effect=Effect(equal, "share of neighbours", max(0.0, equal - half), min(1.0, equal + half)),
            null=Null(expected, float(p_values[best]), float(adjusted[best])),
            num_images=len(rows),
            num_concerned=len(same),
            keys=table.keys_of(rows[same[:MAX_KEYS]]),
            advice=Advice("Shuffle before training, and do not split by position."),
        )
    ]


def _name_order(table: DatasetTable) -> NDArray[np.intp]:
    """Return rows by folder, then by file name with numbers compared as numbers."""

    def parts(row: int) -> tuple[str, list[tuple[int, str]]]:
        folder, _, name = str(table.keys[row]).rpartition("/")
        words = NUMBER.split(name)
        words[1::2] = [word.lstrip("0") for word in words[1::2]]
        return folder, [(len(word) if place % 2 else 0, word) for place, word in enumerate(words)]

    return np.asarray(sorted(range(len(table)), key=parts), np.intp)


def _folders(table: DatasetTable) -> NDArray[np.object_]:
    return np.asarray([str(key).rpartition("/")[0] for key in table.keys.tolist()], object)


def _codes(*columns: NDArray[np.object_] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the different combinations of values in the order of their first row."""
    numbers: dict[tuple[object, ...], int] = {}
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return np.asarray([numbers.setdefault(row, len(numbers)) for row in rows], np.int64)
