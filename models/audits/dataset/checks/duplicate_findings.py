"""Findings about groups of copies: those whose labels differ, then all."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...findings.finding import MAX_KEYS, Advice, Effect, Finding, Null, Severity, finding_id
from ...findings.intervals import wilson
from ..severity import severity_of
from .duplicate_groups import DuplicateGroups, is_conflicting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..dataset_table import DatasetTable


def duplicate_findings(
    table: DatasetTable,
    groups: DuplicateGroups,
    kind: Literal["exact_duplicate", "near_duplicate"],
    phrase: str,
) -> list[Finding]:
    """Return findings about groups of copies; empty without groups.

    Args:
        table: of the dataset.
        groups: of it.
        kind: of the findings.
        phrase: completes "images are", for example ``exact copies of another``.
    """
    members = sorted(groups.members(), key=len, reverse=True)
    if not members:
        return []
    conflicting = [rows for rows in members if is_conflicting(table, rows)]
    found = [_conflict(table, conflicting, kind, phrase)] if conflicting else []
    concerned = sum(map(len, members))
    num_images = int(table.is_readable.sum())
    extra = concerned - len(members)
    severity = severity_of(kind, "share of images", extra / num_images)
    sentence = (
        f"{concerned:,} of {num_images:,} images are {phrase}: {len(members):,} {_groups(members)}, "
        f"the largest of {len(members[0]):,}. With one of each group, {num_images - extra:,} images are left."
    )
    advice = "Keep one image of each group; fixes.csv lists the others."
    return [*found, _finding(table, members, (kind, "", severity), (sentence, advice), extra)]


def _conflict(
    table: DatasetTable,
    members: list[NDArray[np.intp]],
    kind: Literal["exact_duplicate", "near_duplicate"],
    phrase: str,
) -> Finding:
    pairs = Counter(
        tuple(
            sorted(table.class_names[number] for number in np.unique(table.labels[rows]) if number >= 0)[:2]
        )
        for rows in members
    )
    (one, other), most = min(pairs.items(), key=lambda item: (-item[1], item[0]))
    concerned = sum(map(len, members))
    sentence = (
        f"{concerned:,} images are {phrase} and have different labels: {len(members):,} {_groups(members)}, "
        f"most often {one} and {other} ({most:,})."
    )
    advice = "Look at each group and decide which label is right; at most one of them is."
    subject = kind, "labels", severity_of(kind, "labels")
    return _finding(table, members, subject, (sentence, advice), concerned)


def _groups(members: list[NDArray[np.intp]]) -> str:
    return "group" if len(members) == 1 else "groups"


def _finding(
    table: DatasetTable,
    members: list[NDArray[np.intp]],
    subject: tuple[Literal["exact_duplicate", "near_duplicate"], str, Severity],
    texts: tuple[str, str],
    count: int,
) -> Finding:
    kind, name, severity = subject
    num_images = int(table.is_readable.sum())
    low, high = wilson(count, num_images) or (None, None)
    return Finding(
        id=finding_id(kind, name),
        kind=kind,
        severity=severity,
        class_name=None,
        class_number=-1,
        group=None,
        sentence=texts[0],
        effect=Effect(count / num_images, "share of images", low, high),
        null=Null(None),
        num_images=num_images,
        num_concerned=sum(map(len, members)),
        keys=table.keys_of(np.concatenate([rows[:4] for rows in members[:MAX_KEYS]])[:MAX_KEYS]),
        advice=Advice(texts[1]),
    )
