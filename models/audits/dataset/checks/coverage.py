"""Where a dataset has few similar images, and classes whose images are close to each other, by the features of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...findings.fdr import q_values
from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, finding_id
from ...findings.intervals import bootstrap_mean, wilson
from ...findings.nulls import count_p_values
from ..severity import severity_of
from .feature_distances import neighbour_distances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable

NEIGHBOURS = 20
"""Images that cover another: 20 to 50 are the least of a subgroup (Sudman, "Applied sampling", 1976)."""
SPARSE_SHARE = 0.05
"""Share of all images that count as sparsely covered: those with the largest radius that holds `NEIGHBOURS` others (Asudeh et al.,
"Identifying insufficient data coverage for ordinal continuous-valued attributes", 2021)."""
MIN_RATIO = 2.0
"""Times the expected share from which on a class or split is reported."""
MIN_IMAGES = 100
MIN_OF_GROUP = 20
MAX_Q = 0.01
MIN_COMPARED, MAX_COMPARED = 30, 200
"""Images of each class whose distances are compared, the same number of each."""
MAX_NARROW = 0.5
"""Ratio of the distances within a class to those within others below which it is reported."""


@dataclass(frozen=True)
class _Group:
    """A class or a split."""

    name: str
    class_number: int
    places: NDArray[np.intp]


def find_coverage(table: DatasetTable) -> list[Finding]:
    """Return findings about classes and splits with few similar images, then about classes of few distinct ones.

    Empty without features.
    """
    if table.features is None:
        return []
    rows = np.flatnonzero(np.isfinite(table.features).all(axis=1))
    if len(rows) < MIN_IMAGES:
        return []
    return [*_sparse(table, table.features, rows), *_narrow(table, table.features, rows)]


def _sparse(table: DatasetTable, features: NDArray[np.float32], rows: NDArray[np.intp]) -> Iterator[Finding]:
    """Yield a finding for each class and split with more sparsely covered images than chance would give."""
    groups = [each for each in _groups(table, rows) if MIN_OF_GROUP <= len(each.places) < len(rows)]
    if not groups:
        return
    radius = neighbour_distances(features, rows, (NEIGHBOURS,), table.generator("coverage"))[:, 0]
    is_sparse = radius > np.quantile(radius, 1 - SPARSE_SHARE)
    total = int(is_sparse.sum())
    counts = np.array([[int(is_sparse[each.places].sum())] for each in groups], np.int64)
    sizes = np.array([len(each.places) for each in groups], np.int64)
    p_values = count_p_values(counts, sizes, np.array([total], np.int64), len(rows))[:, 0]
    adjusted = q_values(p_values)
    expected = total / len(rows)
    for place in np.argsort(-counts[:, 0] / sizes, kind="stable").tolist():
        group, count = groups[place], int(counts[place, 0])
        share = count / int(sizes[place])
        if adjusted[place] > MAX_Q or share < MIN_RATIO * expected:
            continue
        own = group.places[is_sparse[group.places]]
        own = own[np.argsort(-radius[own], kind="stable")]
        low, high = wilson(count, int(sizes[place])) or (None, None)
        yield Finding(
            id=finding_id("coverage", f"sparse {group.name}"),
            kind="coverage",
            severity=severity_of("coverage", "sparse", share),
            class_name=table.class_names[group.class_number] if group.class_number >= 0 else None,
            class_number=group.class_number,
            group=None if group.class_number >= 0 else f"{group.name.replace(' ', ' = ', 1)}",
            sentence=f"{100 * share:.0f} % of the {sizes[place]:,} images of {group.name} have few similar ones in the dataset: their "
            f"{NEIGHBOURS}th nearest image is farther, by the features of the network, than that of {100 * (1 - expected):.0f} % of all "
            "images.",
            effect=Effect(share, "share of its images", low, high),
            null=Null(expected, float(p_values[place]), float(adjusted[place])),
            num_images=int(sizes[place]),
            num_concerned=count,
            keys=table.keys_of(rows[own[:MAX_KEYS]]),
            advice=Advice("More images like these would help most; scores on them rest on few examples."),
        )


def _groups(table: DatasetTable, rows: NDArray[np.intp]) -> Iterator[_Group]:
    labels = table.labels[rows]
    for number in np.unique(labels[labels >= 0]).tolist():
        yield _Group(f"class {table.class_names[number]}", number, np.flatnonzero(labels == number))
    names = np.array([str(name) if name is not None else "" for name in table.splits[rows]], object)
    for name in sorted(set(names.tolist()) - {""}):
        yield _Group(f"split {name}", -1, np.flatnonzero(names == name))


def _narrow(table: DatasetTable, features: NDArray[np.float32], rows: NDArray[np.intp]) -> Iterator[Finding]:
    """Yield a finding for each class whose images are much closer to each other than those of other classes."""
    labels = table.labels[rows]
    numbers, sizes = np.unique(labels[labels >= 0], return_counts=True)
    numbers, sizes = numbers[sizes >= MIN_COMPARED], sizes[sizes >= MIN_COMPARED]
    if len(numbers) < 2:
        return
    generator = table.generator("distinct images")
    num = min(int(sizes.min()), MAX_COMPARED)
    chosen, logs = [], []
    for number in numbers.tolist():
        own = np.sort(generator.choice(rows[labels == number], num, replace=False))
        chosen.append(own)
        logs.append(np.log(neighbour_distances(features, own, (1,), generator)[:, 0]))
    means = np.array([each.mean() for each in logs])
    for place, number in enumerate(numbers.tolist()):
        usual = float(np.median(np.delete(means, place)))
        low, high = bootstrap_mean(logs[place] - usual, generator) or (0.0, 0.0)
        if np.exp(high) > MAX_NARROW:
            continue
        ratio = float(np.exp(means[place] - usual))
        name = table.class_names[number]
        closest = chosen[place][np.argsort(logs[place], kind="stable")]
        yield Finding(
            id=finding_id("coverage", f"narrow {name}"),
            kind="coverage",
            severity=severity_of("coverage", "narrow"),
            class_name=name,
            class_number=number,
            group=None,
            sentence=f"The images of class {name} are close to each other: of {num:,} images of each class, the distance to the most "
            f"similar one is {ratio:.2f} times that in other classes, by the features of the network. They may come from few "
            "sources, such as one film, one place or one object.",
            effect=Effect(ratio, "times the usual distance", float(np.exp(low)), float(np.exp(high))),
            null=Null(1.0),
            num_images=num,
            num_concerned=num,
            keys=table.keys_of(closest[:MAX_KEYS]),
            advice=Advice(
                "Split the dataset by source, so that the test split holds other ones, and collect images of this class from more "
                "sources."
            ),
        )
