"""Counts of what indexing left out, merged, converted or assumed; part of an index's summary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

Kind = Literal["left_out", "merged", "refused", "unlabelled", "converted", "assumed"]
"""``left_out``: files, folders and members that are no samples. ``merged``: rows that became one. ``refused``: rows that
have a status and cannot be used. ``unlabelled``: samples without a label. ``converted``: values that were changed.
``assumed``: how something ambiguous was read."""

MAX_EXAMPLES = 5
_MAX_EXAMPLE_LENGTH = 80
KINDS: tuple[Kind, ...] = get_args(Kind)


class Remarks:
    """Counts by kind and description, with a few examples each. Not thread-safe.

    Example:
        >>> remarks = Remarks()
        >>> remarks.add("left_out", "empty folders", "bird")
        >>> remarks.lines()
        ['left out: 1 empty folders (bird)']
    """

    def __init__(self, entries: Iterable[Mapping[str, Any]] = ()) -> None:
        self._entries: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self.update(entries)

    def add(self, kind: Kind, what: str, example: str | None = None, *, count: int = 1) -> None:
        """Add to a count.

        Args:
            kind: one of ``KINDS``.
            what: a description in the plural; equal descriptions are counted together.
            example: a name, such as that of a file; the first few are kept.
            count: number to add; 0 adds nothing.
        """
        if count:
            self._merge(kind, what, count, [] if example is None else [_shorten(example)])

    def update(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add entries that ``dump`` returned."""
        for entry in entries:
            self._merge(entry["kind"], entry["what"], entry["count"], list(entry["examples"]))

    def _merge(self, kind: str, what: str, count: int, examples: list[str]) -> None:
        before, known = self._entries.get((kind, what), (0, []))
        known = known + [one for one in dict.fromkeys(examples) if one not in known]
        self._entries[kind, what] = before + count, known[:MAX_EXAMPLES]

    def count(self, kind: Kind) -> int:
        """Return the total of a kind."""
        return sum(count for (one, _), (count, _) in self._entries.items() if one == kind)

    def dump(self) -> list[dict[str, Any]]:
        """Return all entries as JSON values with ``kind``, ``what``, ``count`` and ``examples``, in a stable order."""
        ordered = sorted(
            self._entries.items(), key=lambda item: (KINDS.index(item[0][0]), -item[1][0], item[0])
        )
        return [
            {"kind": kind, "what": what, "count": count, "examples": examples}
            for (kind, what), (count, examples) in ordered
        ]

    def lines(self) -> list[str]:
        """Return one line of text per kind."""
        parts_by_kind: dict[str, list[str]] = {}
        for entry in self.dump():
            examples = entry["examples"]
            more = ", ..." if examples and entry["count"] > len(examples) else ""
            named = f" ({', '.join(examples)}{more})" if examples else ""
            parts_by_kind.setdefault(entry["kind"], []).append(f"{entry['count']:,} {entry['what']}{named}")
        return [f"{kind.replace('_', ' ')}: {'; '.join(parts)}" for kind, parts in parts_by_kind.items()]


def _shorten(text: str) -> str:
    """Escape control characters and limit the length of untrusted names."""
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return text if len(text) <= _MAX_EXAMPLE_LENGTH else f"{text[: _MAX_EXAMPLE_LENGTH - 3]}..."
