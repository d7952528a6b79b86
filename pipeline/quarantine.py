"""The list of samples that could not be used, and the counts that must add up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One sample that could not be used."""

    key: str
    uri: str
    step: str
    """The step that failed: ``read``, ``decode``, ``policy`` or ``index`` (its header was already bad)."""
    reason: str
    decoder: str
    """The decoders that were tried, in order, such as ``dali, opencv, pillow``."""
    replaced_by: str | None
    """Key of the sample that stands in its place; None where it was left out."""
    epoch: int


class Quarantine:
    """Collects entries and counts. Threads may add at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.entries: list[QuarantineEntry] = []
        self._listed: set[tuple[str, str, int]] = set()
        self.counts: dict[str, int] = {"read": 0, "used": 0, "replaced": 0, "skipped": 0}
        """Of the batches that were yielded, without their padding, so that the counts of ranks add up.
        read = used + replaced: positions of batches that were filled by their own or by another sample.
        skipped: rows of the index that never entered a batch because their header was bad; rank 0 counts them."""

    def add(self, entry: QuarantineEntry) -> None:
        """Add an entry, once per key, step and epoch: sampled epochs and padding meet a bad file again."""
        with self._lock:
            name = entry.key, entry.step, entry.epoch
            if name not in self._listed:
                self._listed.add(name)
                self.entries.append(entry)

    def count(self, **numbers: int) -> None:
        """Add to the counts."""
        with self._lock:
            for name, number in numbers.items():
                self.counts[name] += number

    def dump(self) -> list[Mapping[str, Any]]:
        """List the entries as dicts, in a stable order."""
        with self._lock:
            return sorted(
                (asdict(entry) for entry in self.entries), key=lambda e: (e["epoch"], e["key"], e["step"])
            )


def write_quarantine(entries: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write entries as JSON lines, aside and renamed."""
    aside = path.with_name(path.name + ".part")
    aside.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))
    aside.replace(path)
