"""Splits that keep groups together: what to drop from training, and what to move to which split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .duplicate_groups import DuplicateGroups, groups_of, training_split
from .fixes import FixRow
from .leakage import Leaks, find_leakage, find_leaks, leak_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable


def fix_leakage(table: DatasetTable, leaks: Leaks | None = None) -> list[FixRow]:
    """Return rows that drop copies from the training split and move images so that group keys stay in one split."""
    training = training_split(table)
    leaks = find_leaks(table) if leaks is None else leaks
    found = {finding.id for finding in find_leakage(table, leaks)}
    if training is None:
        return []
    in_training = np.asarray([name == training for name in table.splits], np.bool_)
    is_other = np.asarray([name not in (None, training) for name in table.splits], np.bool_)
    rows, dropped = [], np.zeros(len(table), np.bool_)
    for way, groups in (("copy", leaks.exact), ("near duplicate", leaks.near)):
        first = {number: row for row, number in _numbered(groups, is_other)[::-1]}
        for row, number in _numbered(groups, in_training & ~dropped):
            if number in first:
                other = first[number]
                split = str(table.splits[other])
                cause = next(
                    cause for cause in (leak_id(split, way), leak_id(split, "copy")) if cause in found
                )
                rows.append(
                    FixRow(
                        str(table.keys[row]), "drop", "", f"{way} of {table.keys[other]} of {split}", cause
                    )
                )
                dropped[row] = True
    splits = repaired_splits(table, groups_of(np.where(dropped, -1, leaks.by_key.numbers)))
    causes = [leak_id(str(name), leaks.key_name) for name in np.unique(table.splits[is_other].astype(str))]
    cause = next((cause for cause in causes if cause in found), "")
    for row in np.flatnonzero(splits != table.splits).tolist():
        reason = f"same {leaks.key_name} as images of {splits[row]}"
        rows.append(FixRow(str(table.keys[row]), "move", str(splits[row]), reason, cause))
    return rows


def repaired_splits(table: DatasetTable, groups: DuplicateGroups) -> NDArray[np.object_]:
    """Return splits of which none shares a group with another, with about as many images of each class as before.

    Groups that are in one split already stay there. The others are assigned from the largest to the smallest, each to that of
    its splits where the class counts then deviate least from those of the table, as ``sum((count - target)^2 / target)``; at
    equal deviation to the split that has most of the group, then by name.
    """
    names = sorted({str(name) for name in table.splits if name is not None})
    number_of = {name: number for number, name in enumerate(names)}
    numbers = np.asarray([number_of.get(name, -1) for name in table.splits.tolist()], np.int64)
    labels = table.labels - table.labels.min(initial=0)
    targets = np.zeros((len(names), int(labels.max(initial=0)) + 1))
    np.add.at(targets, (numbers[numbers >= 0], labels[numbers >= 0]), 1)
    members = [rows[numbers[rows] >= 0] for rows in groups.members()]
    shared = [rows for rows in members if len(np.unique(numbers[rows])) > 1]
    counts = targets.copy()
    for rows in shared:
        np.subtract.at(counts, (numbers[rows], labels[rows]), 1)
    repaired = table.splits.copy()
    for rows in sorted(shared, key=lambda rows: (-len(rows), int(rows[0]))):
        classes, added = np.unique(labels[rows], return_counts=True)
        splits, present = np.unique(numbers[rows], return_counts=True)
        before, target = counts[np.ix_(splits, classes)], np.maximum(targets[np.ix_(splits, classes)], 0.5)
        worse = ((before + added - target) ** 2 - (before - target) ** 2) / target
        chosen = int(splits[np.lexsort((splits, -present, worse.sum(axis=1).round(9)))[0]])
        counts[chosen, classes] += added
        repaired[rows] = names[chosen]
    return repaired


def _numbered(groups: DuplicateGroups, rows: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return row and group number of those of the rows that have a group."""
    chosen = np.flatnonzero(rows & (groups.numbers >= 0))
    return list(zip(chosen.tolist(), groups.numbers[chosen].tolist(), strict=True))
