"""Quarantine of unusable samples: entries, counts and error limits."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..atomic_io import write_text
from ..errors import RequestError, RunError
from ..plan.error_policy import MIN_IMAGES_FOR_SHARE, ErrorPolicy

QUARANTINE_NAME = "quarantine.jsonl"
NUM_NAMED = 3
"""Bad files named in the error when a limit stops a run."""


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One sample that could not be used."""

    key: str
    uri: str
    step: str
    """The step that failed: ``read``, ``decode`` or ``policy``; ``mask``, ``boxes`` or ``keypoints`` (do not fit the
    image); ``limit`` (larger than the plan allows), ``time`` (took too long) or ``index`` (its header was already bad)."""
    reason: str
    decoder: str
    """The decoders that were tried, in order, such as ``dali, opencv, pillow``."""
    replaced_by: str | None
    """Key of the replacement sample; None where it was skipped or stopped the run."""
    epoch: int


class Quarantine:
    """Thread-safe collection of quarantine entries and sample counts."""

    def __init__(self, rules: ErrorPolicy | None = None) -> None:
        self._lock = threading.Lock()
        self._rules = rules or ErrorPolicy()
        self._entries: list[QuarantineEntry] = []
        self._names: set[tuple[str, str, int]] = set()
        self._bad: dict[str, str] = {}
        self._num_judged = 0
        self._num_failed = 0
        self.counts: dict[str, int] = {"read": 0, "used": 0, "replaced": 0, "skipped": 0}
        """Counts of yielded batches without padding, so that the counts of all ranks add up.
        read = used + replaced: batch rows filled by the scheduled sample or by a replacement.
        skipped: left out with ``on_error: skip``, or because the header was already bad when it was indexed; the
        latter are counted by rank 0 only."""

    def add(self, entry: QuarantineEntry) -> None:
        """Add an entry, once per key, step and epoch: sampling with replacement and padding repeat bad files."""
        with self._lock:
            name = entry.key, entry.step, entry.epoch
            if name not in self._names:
                self._names.add(name)
                self._entries.append(entry)
            if entry.step != "index":
                self._bad.setdefault(entry.key, f"{entry.key!r} ({entry.step}: {entry.reason})")

    def count(self, *, read: int = 0, used: int = 0, replaced: int = 0, skipped: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            numbers = {"read": read, "used": used, "replaced": replaced, "skipped": skipped}
            for name, number in numbers.items():
                self.counts[name] += number

    def check_limits(self, *, made: int, failed: int) -> None:
        """Count the samples processed for a batch, replacements included, and check the error limits.

        Raises:
            RunError: more bad files, or a larger share of bad images, than the plan tolerates.
        """
        limits = self._rules
        with self._lock:
            self._num_judged += made
            self._num_failed += failed
            judged, bad = self._num_judged, self._num_failed
            if limits.max_bad is not None and len(self._bad) > limits.max_bad:
                raise RunError(
                    self._too_many(
                        f"at most {limits.max_bad:,} bad files (errors.max_bad), got {len(self._bad):,}"
                    )
                )
            share = limits.max_bad_share
            if share is not None and judged >= MIN_IMAGES_FOR_SHARE and bad > share * judged:
                raise RunError(
                    self._too_many(
                        f"at most {share:.1%} bad images (errors.max_bad_share), got {bad / judged:.1%}"
                    )
                )

    def _too_many(self, what: str) -> str:
        named = "; ".join(list(self._bad.values())[:NUM_NAMED])
        more = f"; and {len(self._bad) - NUM_NAMED:,} more" if len(self._bad) > NUM_NAMED else ""
        return (
            f"expected {what} of {self._num_judged:,} images so far: {named}{more}; fix the files and index again, or raise the "
            f"limit. All are listed in {QUARANTINE_NAME} of the output folder, or in the feed's quarantine"
        )

    def __len__(self) -> int:
        return len(self._entries)

    def dump(self, first: int = 0) -> list[Mapping[str, Any]]:
        """Return the entries as dicts, in a stable order, without the first ``first`` added."""
        with self._lock:
            entries = self._entries[first:]
        return sorted((asdict(entry) for entry in entries), key=lambda e: (e["epoch"], e["key"], e["step"]))


def write_quarantine(entries: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write entries as JSON lines, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, _lines(entries))


def append_quarantine(entries: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Append entries to a file. A kill while writing may leave a partial last line, which readers ignore."""
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(entries))


def _lines(entries: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def read_quarantine(path: Path) -> list[Mapping[str, Any]]:
    """Read entries, ignoring a partial last line; empty if the file does not exist."""
    if not path.is_file():
        return []
    *lines, _ = path.read_bytes().split(b"\n")  # not splitlines(): names may contain other line breaks
    return [_read_line(path, number, line) for number, line in enumerate(lines, 1)]


def _read_line(path: Path, number: int, line: bytes) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    names = {"key": str, "step": str, "epoch": int}
    if not isinstance(entry, dict) or not all(
        isinstance(entry.get(name), kind) for name, kind in names.items()
    ):
        raise RequestError(
            f"{path}: expected a quarantine entry in line {number}, got something else; the file was changed since it "
            "was written: move it away, or choose another --out"
        )
    return entry
