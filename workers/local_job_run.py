"""Runs a batch job in this process, on the batches of a feed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.contracts import BatchRecords, quarantine_after

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import BatchJob, Feed
    from ..pipeline.monitor.stats import FeedStats


class LocalJobRun:
    """Turns a feed's batches into records, one after another; a context manager, like the feed."""

    def __init__(self, job: BatchJob, feed: Feed) -> None:
        self._job = job
        self._feed = feed

    @property
    def num_batches(self) -> int:
        """Number of batches, from where the feed was opened."""
        return self._feed.num_batches

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far."""
        return self._feed.quarantine

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """Return the entries of ``quarantine`` from an index on, in a stable order."""
        return quarantine_after(self._feed, first)

    @property
    def counts(self) -> dict[str, int]:
        """Images read, used, replaced and skipped so far."""
        return self._feed.counts

    def position(self) -> dict[str, Any]:
        """Return the feed's position."""
        return self._feed.position()

    def stats(self) -> FeedStats:
        """Return the feed's statistics."""
        return self._feed.stats()

    def __enter__(self) -> LocalJobRun:
        self._feed.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._feed.__exit__(*exc)

    def __iter__(self) -> Iterator[BatchRecords]:
        """Process the batches, without padding; each batch is released before the next one is read."""
        with self._job.open() as process:
            for batch in self._feed:
                num_read, num_used = batch.num_images, int(batch.is_valid.sum())
                records = process(batch.without_padding()) if num_read else ()
                del batch
                yield BatchRecords(records, num_read, num_used)
