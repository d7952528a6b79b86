"""Groups of images that are copies of each other, and which one of a group to keep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from .fixes import FixRow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable
    from .hamming import Pairs

EVALUATION_NAMES = ("test", "val", "dev", "eval", "holdout")
"""Beginnings of names of splits that models are not trained on."""


@dataclass(frozen=True)
class DuplicateGroups:
    """Rows that belong together; every group has at least two."""

    numbers: NDArray[np.int64]
    """Group of each row, from 0 in the order of their first rows; -1 without a group."""

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.numbers.max(initial=-1)) + 1

    def members(self) -> Iterator[NDArray[np.intp]]:
        """Yield the rows of each group, in their order."""
        rows = np.flatnonzero(self.numbers >= 0)
        rows = rows[np.argsort(self.numbers[rows], kind="stable")]
        if len(rows):
            yield from np.split(rows, np.flatnonzero(np.diff(self.numbers[rows])) + 1)


def groups_of(values: NDArray[np.int64]) -> DuplicateGroups:
    """Return groups of rows with equal values; rows with negative values have none."""
    rows = np.flatnonzero(values >= 0)
    _, inverse, sizes = np.unique(values[rows], return_inverse=True, return_counts=True)
    rows, inverse = rows[sizes[inverse] > 1], inverse[sizes[inverse] > 1]
    _, first, inverse = np.unique(inverse, return_index=True, return_inverse=True)
    numbers = np.full(len(values), -1, np.int64)
    numbers[rows] = np.argsort(np.argsort(first))[inverse]
    return DuplicateGroups(numbers)


def groups_around_medoids(same: Pairs, pairs: Pairs, num_rows: int) -> DuplicateGroups:
    """Return groups in which everything is paired with one of them, the medoid.

    Connected components alone may be chains of images whose ends have nothing in common. Of each component, the image with
    the most pairs and its partners become a group, then the same among what is left.

    Args:
        same: pairs of rows that count as one image.
        pairs: pairs of similar rows.
        num_rows: number of rows.
    """
    count, images = connected_components(_graph(same, num_rows), directed=False)
    first, second = np.sort(np.stack([images[pairs[0]], images[pairs[1]]]), axis=0)
    different = np.unique(np.stack([first, second], axis=1)[first < second], axis=0)
    graph = _graph((different[:, 0], different[:, 1]), count)
    degrees = np.diff(graph.indptr)
    numbers = np.arange(count)
    is_free = degrees > 0
    rows = np.flatnonzero(is_free)
    for row in rows[np.argsort(-degrees[rows], kind="stable")].tolist():
        if is_free[row]:
            partners = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
            partners = partners[is_free[partners]]
            numbers[partners] = row
            is_free[partners] = is_free[row] = False
    return groups_of(numbers[images])


def _graph(pairs: Pairs, count: int) -> csr_array:
    ends = np.concatenate(pairs), np.concatenate(pairs[::-1])
    return csr_array((np.ones(len(ends[0]), np.int8), ends), shape=(count, count))


def is_conflicting(table: DatasetTable, rows: NDArray[np.intp]) -> bool:
    """Return whether the labels of a group's rows differ."""
    labels = table.labels[rows]
    return len(np.unique(labels[labels >= 0])) > 1


def training_split(table: DatasetTable) -> str | None:
    """Return the name of the split that models are trained on; None if no split can be.

    That is the one whose name begins with ``train``, else the largest whose name is not that of an evaluation split.
    """
    names, counts = np.unique([str(name) for name in table.splits if name is not None], return_counts=True)
    by_size = [str(name) for name in names[np.argsort(-counts, kind="stable")]]
    named = [name for name in by_size if name.lower().startswith("train")]
    others = [name for name in by_size if not name.lower().startswith(EVALUATION_NAMES)]
    return next(iter([*named, *others]), None)


def superfluous_rows(table: DatasetTable, rows: NDArray[np.intp], training: str | None) -> NDArray[np.intp]:
    """Return all rows of a group but the one to keep: of an evaluation split if there is one, then the largest file.

    Rows of other evaluation splits are kept as well. A group with different labels has no superfluous rows, except those of
    the training split of which there are copies in an evaluation split.
    """
    splits = [table.splits[row] for row in rows]
    is_test = np.asarray([name is not None and name != training for name in splits])
    if is_conflicting(table, rows):
        return (
            rows[[name == training and training is not None for name in splits]]
            if is_test.any()
            else rows[:0]
        )
    pixels, size = (_column(table, names, rows) for names in (("width", "height"), ("bytes",)))
    order = np.lexsort((np.arange(len(rows)), -size, -pixels, ~is_test))
    kept: set[object] = set()
    superfluous = []
    for place in order.tolist():
        split = splits[place]
        if not kept or (is_test[place] and split not in kept):
            kept.add(split)
        else:
            superfluous.append(place)
    return np.asarray(rows[np.sort(np.asarray(superfluous, np.intp))], np.intp)


def without_copies(table: DatasetTable, groups: DuplicateGroups, exact: DuplicateGroups) -> DuplicateGroups:
    """Return groups with one row of each group of exact copies, the one that is kept.

    Args:
        table: of the dataset.
        groups: of near duplicates, exact copies included.
        exact: groups of exact copies.
    """
    numbers = groups.numbers.copy()
    training = training_split(table)
    for rows in exact.members():
        kept = np.setdiff1d(rows, superfluous_rows(table, rows, training))
        numbers[rows[rows != (kept[0] if len(kept) else rows[0])]] = -1
    return groups_of(numbers)


def fixes_of_groups(
    table: DatasetTable, groups: DuplicateGroups, findings: list[Finding], word: str
) -> list[FixRow]:
    """Return rows that drop all but one image of each group.

    Args:
        table: of the dataset.
        groups: of it.
        findings: of the groups; the last one is named in the rows.
        word: for the reason, for example ``copy``.
    """
    rows, training = [], training_split(table)
    for members in groups.members():
        superfluous = superfluous_rows(table, members, training)
        kept = np.setdiff1d(members, superfluous)
        rows += [
            FixRow(key, "drop", "", f"{word} of {table.keys[kept[0]]}", findings[-1].id)
            for key in table.keys_of(superfluous)
            if len(kept)
        ]
    return rows


def _column(table: DatasetTable, names: tuple[str, ...], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the product of numbers of the files; zero where there is none."""
    value = np.ones(len(rows))
    for name in names:
        if name not in table.files:
            return np.zeros(len(rows))
        value = value * np.nan_to_num(np.asarray(table.files[name][rows], np.float64))
    return value
