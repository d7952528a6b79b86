"""Classes as the page lists them: images, unusable files, splits and findings of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ...findings.finding import SEVERITIES

if TYPE_CHECKING:
    from ...findings.finding import Finding

MAX_SPLITS = 4
"""Splits with a column of their own."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A class in numbers."""

    name: str
    num_images: int
    """Usable ones."""
    share: float
    """Of the images with a class."""
    num_unusable: int
    splits: tuple[tuple[str, int], ...]
    findings: tuple[Finding, ...]
    """On this class alone, the most severe first."""


def class_rows(findings: Mapping[str, Any], found: Sequence[Finding], records: pa.Table) -> list[ClassRow]:
    """Return the classes, those with the most severe findings first, then the largest.

    Args:
        findings: the content of findings.json.
        found: the findings, the most severe first.
        records: of the stage ``records``.
    """
    classes: Mapping[str, int] = findings["classes"]
    has_columns = 1 < len(findings["splits"]) <= MAX_SPLITS and not findings["is_multi_label"]
    splits = list(findings["splits"]) if has_columns else []
    is_usable = pc.is_null(records["problem"])
    unusable = dict(_counts(records.filter(pc.invert(is_usable)), ["class"]))
    by_split = dict(_counts(records.filter(is_usable), ["class", "split"]))
    own: dict[str, list[Finding]] = {}
    for finding in found:
        if finding.class_name is not None:
            own.setdefault(finding.class_name, []).append(finding)
    total = sum(classes.values())
    rows = [
        ClassRow(
            name,
            count,
            count / total,
            unusable.get((name,), 0),
            tuple((split, by_split.get((name, split), 0)) for split in splits),
            tuple(own.get(name, ())),
        )
        for name, count in classes.items()
    ]
    return sorted(rows, key=lambda row: (_rank(row), -row.num_images, row.name))


def _rank(row: ClassRow) -> int:
    return SEVERITIES.index(row.findings[0].severity) if row.findings else len(SEVERITIES)


def _counts(records: pa.Table, columns: list[str]) -> list[tuple[tuple[str | None, ...], int]]:
    counted = records.select(columns).group_by(columns).aggregate([([], "count_all")])
    names = zip(*(counted[column].to_pylist() for column in columns), strict=True)
    return list(zip(names, counted["count_all"].to_pylist(), strict=True))
