"""Writes the quarantine list to disk while a job runs, so that a crash does not lose it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..pipeline.errors import OutputError
from ..pipeline.jobs.contracts import IncrementalQuarantine, quarantine_after
from ..pipeline.monitor.quarantine import append_quarantine, write_quarantine
from .observed_engine import ObservedEngine

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import Engine, Feed
    from ..pipeline.jobs.stage_run import StageRun

INTERVAL_S = 1.0
"""Interval between writes: a kill loses at most the entries of this many seconds."""


class QuarantineLog:
    """Quarantine list of all feeds of a job; a context manager, which writes a last time on exit.

    The file is written atomically at the start and, sorted, at the end. In between, new entries are appended at most once
    a second, at a cost that does not grow with the list.

    Args:
        path: the file.
        previous: entries of the run that is resumed.
        counts: counts of that run.
    """

    def __init__(
        self,
        path: Path,
        previous: Iterable[Mapping[str, Any]] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self._path = path
        self._previous = self._pending = tuple(previous)
        self._counts = dict(counts or {})
        self._feeds: list[Feed | StageRun] = []
        self._writing = threading.Lock()
        self._num_known: list[int] = []
        """Number of entries already taken from each feed."""
        self._listed: set[tuple[int, str, str]] = set()
        """Keys of the entries in the file."""
        self._is_written = self._in_order = False
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._write_periodically, name="lightwell-quarantine", daemon=True
        )

    def record(self, engine: Engine) -> ObservedEngine:
        """Wrap an engine so that all its feeds are recorded."""
        return ObservedEngine(engine, lambda feed, _, resumed: self._add_feed(feed, resumed=resumed))

    def _add_feed(self, feed: Feed | StageRun, *, resumed: bool) -> None:
        self._feeds.append(feed)
        if resumed:  # its initial counts are already part of the resumed run's
            for name, number in feed.counts.items():
                self._counts[name] = self._counts.get(name, 0) - number

    def entries(self) -> list[Mapping[str, Any]]:
        """Return all entries so far, one per file, step and epoch."""
        found = {
            entry_key(entry): entry
            for entries in (self._previous, *(feed.quarantine for feed in list(self._feeds)))
            for entry in entries
        }
        return [found[name] for name in sorted(found)]

    def counts(self) -> dict[str, int]:
        """Sum the counts of all feeds of this process and of the resumed run."""
        total = Counter(self._counts)
        for feed in self._feeds:
            total.update(feed.counts)
        return dict(total)

    def add_entries(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Add entries of other ranks."""
        with self._writing:
            self._pending = (*self._pending, *entries)
            found = {entry_key(entry): entry for entry in (*self._previous, *self._pending)}
            self._previous = tuple(found.values())

    def write(self) -> None:
        """Write new entries now."""
        with self._writing:
            new = self._take_new()
            if not self._is_written:
                self._write_in_order()
                self._is_written = True
            elif new:
                self._is_written = self._in_order = False  # a full disk may leave half a line
                append_quarantine(new, self._path)
                self._is_written = True

    def _take_new(self) -> list[Mapping[str, Any]]:
        """Return the entries that are not in the file yet, and mark them as listed."""
        found, self._pending = list(self._pending), ()
        for number, feed in enumerate(list(self._feeds)):
            if number == len(self._num_known):
                self._num_known.append(0)
            entries = quarantine_after(feed, self._num_known[number])
            if isinstance(feed, IncrementalQuarantine):
                self._num_known[number] += len(entries)
            found += entries
        new = {entry_key(entry): entry for entry in found if entry_key(entry) not in self._listed}
        self._listed.update(new)
        return list(new.values())

    def _write_in_order(self) -> None:
        write_quarantine(self.entries(), self._path)
        self._in_order = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        try:
            self.write()
            if not self._in_order:
                self._write_in_order()
        except (OSError, OutputError) as failure:
            if error is None:  # else the run's own error says more
                raise OutputError(
                    f"expected to write {str(self._path)!r}, got {failure}; free space, or choose another --out"
                ) from failure

    def _write_periodically(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            try:
                self.write()
            except (OSError, OutputError):
                return  # the last write, when the job ends, raises the error


def entry_key(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return the key that identifies and sorts an entry."""
    return entry["epoch"], entry["key"], entry["step"]
