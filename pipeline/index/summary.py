"""Human-readable summary of an index as two tables; ``Index.summary()`` returns the full data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from .sources.remarks import Remarks

if TYPE_CHECKING:
    from .index import Index

MAX_CLASSES = 20
_ORDER = ("train", "val", "test")

Rows = tuple[list[str], list[list[str]]]


def usable_rows(index: Index) -> Rows:
    """Count usable images by class and split; return header and rows.

    If there are more than ``MAX_CLASSES`` classes, the smallest share one row. The last row counts images, which are fewer
    than the sum if images have several classes.
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
    rows = [
        _row(title, [sum(cells[name, split] for name in names) for split in splits])
        for title, names in groups
    ]
    if len(ordered) > 1:
        images = Counter(_name(split, "(no split)") for split in _splits_of_usable(index))
        rows.append(_row("all", [images[split] for split in splits]))
    return ["class", *splits, "all"], rows


def remark_lines(index: Index) -> list[str]:
    """Return text lines on boxes and on what indexing left out, merged, converted or assumed."""
    return [*_box_lines(index), *Remarks(index.source.get("remarks", [])).lines()]


def _box_lines(index: Index) -> list[str]:
    counts = index.box_counts()
    if not counts:
        return []
    named = [f"{name} {count:,}" for name, count in counts.items()]
    rest = len(named) - MAX_CLASSES
    more = f", and {rest:,} other classes" if rest > 0 else ""
    return [f"boxes: {sum(counts.values()):,} ({', '.join(named[:MAX_CLASSES])}{more})"]


def unusable_rows(index: Index) -> Rows:
    """Count unusable files by reason, most frequent first; return header and rows."""
    counts_by_reason: Counter[str] = Counter()
    for row in index.counts():
        if row["status"] != "ok":
            counts_by_reason[row["status"].partition(": ")[0]] += row["count"]
    ordered = sorted(counts_by_reason.items(), key=lambda item: (-item[1], item[0]))
    return ["cannot be used", "files"], [[reason, f"{count:,}"] for reason, count in ordered]


def _splits_of_usable(index: Index) -> list[str | None]:
    table = index.table.select(["split", "status"])
    return table["split"].filter(pc.equal(table["status"], "ok")).to_pylist()  # type: ignore[no-any-return]


def _row(title: str, numbers: list[int]) -> list[str]:
    return [title, *(f"{number:,}" for number in (*numbers, sum(numbers)))]


def _name(value: str | None, missing: str) -> str:
    return missing if value is None else str(value)
