"""A batch job at work in this process, on the batches of a feed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..pipeline.jobs.contracts import BatchRecords, quarantine_after

if TYPE_CHECKING:
    from ..pipeline.jobs.contracts import BatchJob, Feed
    from ..pipeline.monitor.stats import FeedStats


class LocalJobRun:
    """Turns a feed's batches into records, one after another; a context manager, as the feed is."""

    def __init__(self, job: BatchJob, feed: Feed) -> None:
        self._job = job
        self._feed = feed

    @property
    def num_batches(self) -> int:
        """Batches that are left."""
        return self._feed.num_batches

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples that could not be used so far."""
        return self._feed.quarantine

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """List those that were found after so many."""
        return quarantine_after(self._feed, first)

    @property
    def counts(self) -> dict[str, int]:
        """Images so far."""
        return self._feed.counts

    def position(self) -> dict[str, Any]:
        """Say where the feed stands."""
        return self._feed.position()

    def stats(self) -> FeedStats:
        """Say where the feed's time went."""
        return self._feed.stats()

    def __enter__(self) -> LocalJobRun:
        self._feed.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._feed.__exit__(*exc)

    def __iter__(self) -> Iterator[BatchRecords]:
        """Work on the batches; no batch is held longer than its turn, and jobs see no padding."""
        with self._job.open() as work:
            for batch in self._feed:
                num_read, num_used = batch.num_images, int(batch.is_valid.sum())
                records = work(batch.without_padding()) if num_read else ()
                del batch
                yield BatchRecords(records, num_read, num_used)
