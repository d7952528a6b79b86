"""Where a feed's consumer stands and what was found on the way: the same books for every engine.

Batches may be made by any thread of any machine and in any order. Here they are taken in their own order, and what
became of their samples is written down at their turn, so that no engine decides where a run stops or what it lists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Self

from ..order.position import batches_before, position_after
from ..quarantine import Quarantine, QuarantineEntry
from ..uris import public_uri
from .maker import MadeBatch
from .open_view import OpenView


class Books:
    """Counts, quarantine and position of one feed. One thread takes batches, any thread may read.

    Raises:
        PlanError: the position is none, or of another plan or view.
    """

    def __init__(self, opened: OpenView, position: Mapping[str, Any] | None = None) -> None:
        self._opened = opened
        self._quarantine = Quarantine(opened.plan.errors)
        self._quarantine_bad_headers()
        self.next = 0
        """Number of the batch that the consumer has not had yet."""
        if position is not None:
            steps = opened.schedule.num_steps
            self.next = batches_before(position, opened.view, plan=opened.fingerprint, num_steps=steps)
        self.num_batches = opened.schedule.num_batches - self.next
        """Batches of all epochs together, from where the feed was opened; ``on_error: skip`` passes over those with
        no image left."""

    def take(self, made: MadeBatch) -> None:
        """Write down what became of the next batch.

        Raises:
            LightwellError: what its making raised.
            RunError: more is bad than the plan bears.
        """
        assert made.number == self.next, (made.number, self.next)
        for entry in made.entries:
            self._quarantine.add(entry)
        if made.error is not None:
            raise made.error
        self._quarantine.judge(made=made.num_made, failed=made.num_failed)
        self.next += 1
        self._quarantine.count(
            read=made.num_read,
            used=made.num_used,
            replaced=made.num_read - made.num_used,
            skipped=made.num_skipped,
        )

    def position(self) -> dict[str, Any]:
        """Say where the consumer stands: behind the last batch it was given. A small value that JSON holds."""
        epoch, step = self._opened.schedule.place_of(self.next)
        return position_after(self._opened.view, plan=self._opened.fingerprint, epoch=epoch, step=step)

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples of the batches so far that could not be used, as dicts."""
        return self._quarantine.dump()

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """List those that were found after so many."""
        return self._quarantine.dump(first)

    @property
    def counts(self) -> dict[str, int]:
        """Images yielded, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return dict(self._quarantine.counts)

    def _quarantine_bad_headers(self) -> None:
        """List the rows that the index already knows to be bad, once, as skipped; of several ranks, by the first."""
        view = self._opened.view
        if view.keys is not None or view.rank:
            return
        num_bad = 0
        for entry in _bad_headers(self._opened):
            self._quarantine.add(entry)
            num_bad += 1
        self._quarantine.count(skipped=num_bad)


class BookedFeed(ABC):
    """What every feed says of itself out of its books; a context manager, which closes it.

    Args:
        opened: the view whose batches come.
        books: where its consumer stands.
    """

    def __init__(self, opened: OpenView, books: Books) -> None:
        self._opened = opened
        self._books = books
        self.num_batches = books.num_batches
        """Batches of all epochs together, from where it was opened; ``on_error: skip`` passes over those with no image
        left."""

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples of the batches so far that could not be used, as dicts."""
        return self._books.quarantine

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """List those that were found after so many."""
        return self._books.quarantine_from(first)

    @property
    def counts(self) -> dict[str, int]:
        """Images yielded, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return self._books.counts

    def position(self) -> dict[str, Any]:
        """Say where the consumer stands: behind the last batch it was given. A small value that JSON holds."""
        return self._books.position()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of whatever makes the batches."""


def _bad_headers(opened: OpenView) -> Iterator[QuarantineEntry]:
    view = opened.view
    for row in opened.index.unusable(view.split).to_pylist():
        uri = public_uri(row["uri"] or "")
        yield QuarantineEntry(row["key"], uri, "index", row["status"], "", None, view.first_epoch)
