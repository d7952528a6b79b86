"""Keeps the list of files that could not be used on disk while a job runs, so that a crash does not lose it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..pipeline.errors import OutputError
from ..pipeline.jobs.contracts import IncrementalQuarantine, JobEngine, quarantine_after
from ..pipeline.monitor.quarantine import append_quarantine, write_quarantine
from .in_process import LocalJobRun

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import BatchJob, Engine, Feed, JobRun
    from ..pipeline.plan.plan import Plan
    from ..pipeline.plan.view import View

INTERVAL_S = 1.0
"""What a kill can lose of the list."""


class QuarantineLog:
    """Lists what all feeds of a job could not use; a context manager, which writes for the last time when it is left.

    The file is written aside and renamed when it is begun and when it is done, then in order. Between, what is new is
    written behind it, at most once a second: what a second costs does not grow with the list.

    Args:
        path: the list's file.
        before: entries of an earlier run that this one takes up.
        counts: what that run had counted.
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
        self._feeds: list[Feed | JobRun] = []
        self._writing = threading.Lock()
        self._num_known: list[int] = []
        """Of how many entries of each feed we know."""
        self._listed: set[tuple[int, str, str]] = set()
        """What is in the file."""
        self._is_written = self._in_order = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_periodically, name="lightwell-ledger", daemon=True)

    def record(self, engine: Engine) -> RecordingEngine:
        """Return the engine with all its feeds watched."""
        return RecordingEngine(engine, self._add_feed)

    def _add_feed(self, feed: Feed | JobRun, *, resumed: bool) -> None:
        self._feeds.append(feed)
        if resumed:  # what it counts as it opens was counted by the run that it goes on with
            for name, number in feed.counts.items():
                self._counts[name] = self._counts.get(name, 0) - number

    def entries(self) -> list[Mapping[str, Any]]:
        """List what was found so far, each file, step and epoch once."""
        found = {
            entry_key(entry): entry
            for entries in (self._previous, *(feed.quarantine for feed in list(self._feeds)))
            for entry in entries
        }
        return [found[name] for name in sorted(found)]

    def counts(self) -> dict[str, int]:
        """Add up the counts of all feeds of this process and of the run that it goes on with."""
        total = Counter(self._counts)
        for feed in self._feeds:
            total.update(feed.counts)
        return dict(total)

    def add_entries(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """List what others have found as well."""
        with self._writing:
            self._pending = (*self._pending, *entries)
            found = {entry_key(entry): entry for entry in (*self._previous, *self._pending)}
            self._previous = tuple(found.values())

    def write(self) -> None:
        """Write now what is new."""
        with self._writing:
            new = self._take_new()
            if not self._is_written:
                self._write_in_order()
                self._is_written = True
            elif new:
                self._is_written = self._in_order = False  # half a line, if the disk is full
                append_quarantine(new, self._path)
                self._is_written = True

    def _take_new(self) -> list[Mapping[str, Any]]:
        """Take what is not in the file yet, and note it."""
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
                return  # said when the job ends; its own writing tells too


def entry_key(entry: Mapping[str, Any]) -> tuple[int, str, str]:
    """Say what tells an entry from others, in the order of the list."""
    return entry["epoch"], entry["key"], entry["step"]


class RecordingEngine:
    """An engine whose feeds are noted, and which works on jobs whatever the engine."""

    def __init__(self, engine: Engine, add_feed: Callable[..., None]) -> None:
        self._engine = engine
        self._add_feed = add_feed

    def feed(self, plan: Plan, view: View, position: Mapping[str, Any] | None = None) -> Feed:
        """Open a feed and note it."""
        feed = self._engine.feed(plan, view) if position is None else self._engine.feed(plan, view, position)
        self._add_feed(feed, resumed=position is not None)
        return feed

    def open_job(self, job: BatchJob, position: Mapping[str, Any] | None = None) -> JobRun:
        """Open a job at its view and note it: on the engine where that can, else in this process."""
        if isinstance(self._engine, JobEngine):
            run = self._engine.open_job(job, position)
        else:
            run = LocalJobRun(job, self._engine.feed(job.plan, job.view, position))
        self._add_feed(run, resumed=position is not None)
        return run
