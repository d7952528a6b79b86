"""Files that cannot be read or decoded, by reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ..severity import severity_of
from .fixes import FixRow
from .share_findings import share_finding

if TYPE_CHECKING:
    from ...findings.finding import Finding
    from ..dataset_table import DatasetTable

MAX_REASONS = 20
"""Reasons that have a finding of their own, the most frequent first."""


def find_unreadable(table: DatasetTable) -> list[Finding]:
    """Return a finding for each reason; numbers in a reason, such as positions in the file, do not distinguish it."""
    groups: dict[str, list[int]] = {}
    for row, problem in enumerate(table.problems.tolist()):
        if problem is not None:
            groups.setdefault(re.sub(r"\d[\d,.]*", "N", problem), []).append(row)
    num_unreadable = sum(map(len, groups.values()))
    severity = severity_of("unreadable", "share of files", num_unreadable / max(1, len(table)))
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:MAX_REASONS]
    return [
        share_finding(
            table,
            ("unreadable", reason, severity),
            np.asarray(rows, np.intp),
            len(table),
            f"cannot be used: {table.problems[rows[0]]}",
            "Replace these files, or drop them as fixes.csv does.",
        )
        for reason, rows in ordered
    ]


def fix_unreadable(table: DatasetTable) -> list[FixRow]:
    """Return rows that drop the files of the findings."""
    id_of = {
        re.sub(r"\d[\d,.]*", "N", str(table.problems[_row_of(table, found.keys[0])])): found.id
        for found in find_unreadable(table)
    }
    return [
        FixRow(str(key), "drop", "", str(problem), cause)
        for key, problem in zip(table.keys.tolist(), table.problems.tolist(), strict=True)
        if problem is not None and (cause := id_of.get(re.sub(r"\d[\d,.]*", "N", problem)))
    ]


def _row_of(table: DatasetTable, key: str) -> int:
    return int(np.flatnonzero(table.keys == key)[0])
