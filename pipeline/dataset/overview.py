"""What an index holds, in two short tables for people; ``Index.summary()`` has all of it for machines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .index import Index

MAX_CLASSES = 20
_ORDER = ("train", "val", "test")

Rows = tuple[list[str], list[list[str]]]


def usable_rows(index: Index) -> Rows:
    """Count usable images by class and split; returns header and rows, classes with most images first.

    Of more than ``MAX_CLASSES`` classes, the smaller ones share a row. The last row is the total.
    """
    counts = [row for row in index.counts() if row["status"] == "ok"]
    cells: Counter[tuple[str, str]] = Counter()
    for row in counts:
        cells[_name(row["class"], "(no label)"), _name(row["split"], "(no split)")] += row["count"]
    splits = sorted({split for _, split in cells}, key=lambda s: (_ORDER.index(s) if s in _ORDER else 9, s))
    sizes: Counter[str] = Counter()
    for (name, _), count in cells.items():
        sizes[name] += count
    ordered = sorted(sizes, key=lambda name: (-sizes[name], name))
    shown = ordered if len(ordered) <= MAX_CLASSES else ordered[: MAX_CLASSES - 1]
    groups = [(name, [name]) for name in sorted(shown)]
    if rest := ordered[len(shown) :]:
        groups.append((f"{len(rest):,} other classes", rest))
    if len(ordered) > 1:
        groups.append(("all", ordered))
    rows = []
    for title, names in groups:
        numbers = [sum(cells[name, split] for name in names) for split in splits]
        rows.append([title, *(f"{number:,}" for number in (*numbers, sum(numbers)))])
    return ["class", *splits, "all"], rows


def unusable_rows(index: Index) -> Rows:
    """Count the files that cannot be used by kind of reason, most frequent first; header and rows."""
    reasons: Counter[str] = Counter()
    for row in index.counts():
        if row["status"] != "ok":
            reasons[row["status"].partition(": ")[0]] += row["count"]
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ["cannot be used", "files"], [[reason, f"{count:,}"] for reason, count in ordered]


def _name(value: str | None, missing: str) -> str:
    return missing if value is None else str(value)
