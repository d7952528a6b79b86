"""Consumer position, counters and quarantine of a feed, shared by all engines.

Engines make batches on any thread or machine and in any order. Here their results are recorded in batch order, so that
position, counts, quarantine and the batch at which a run fails do not depend on the engine.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

from ..compiler.routing import Backend
from ..errors import RequestError
from ..index.boxes import count_boxes
from ..monitor.quarantine import Quarantine, QuarantineEntry
from ..sampler.position import batches_before, make_position
from ..uris import public_uri
from .batch_builder import BatchResult
from .iteration import IterationGuard
from .open_view import OpenView

if TYPE_CHECKING:
    from ..preview.preview import Preview

_logger = logging.getLogger("lightwell")
T = TypeVar("T")


class FeedState:
    """Counts, quarantine and position of one feed. One thread records batches, any thread may read.

    Raises:
        PlanError: the position is malformed, or belongs to another plan or view.
    """

    def __init__(self, opened: OpenView, position: Mapping[str, Any] | None = None) -> None:
        self._opened = opened
        self._quarantine = Quarantine(opened.plan.errors)
        self._quarantine_bad_headers()
        self.next = 0
        """Number of the next batch."""
        if position is not None:
            steps = opened.schedule.num_steps
            self.next = batches_before(position, opened.view, plan=opened.fingerprint, num_steps=steps)
        self.num_batches = opened.schedule.num_batches - self.next
        """Batches of all epochs together, from where the feed was opened; ``on_error: skip`` omits those without a
        usable image."""

    def record_batch(self, result: BatchResult) -> None:
        """Record the result of the next batch.

        Raises:
            LightwellError: the error of the batch.
            RunError: more images are bad than the plan tolerates.
        """
        assert result.number == self.next, (result.number, self.next)
        for entry in result.entries:
            self._quarantine.add(entry)
        if result.error is not None:
            raise result.error
        self._quarantine.check_limits(made=result.num_made, failed=result.num_failed)
        self.next += 1
        self._quarantine.count(
            read=result.num_read,
            used=result.num_used,
            replaced=result.num_read - result.num_used,
            skipped=result.num_skipped,
        )

    def position(self) -> dict[str, Any]:
        """Return the consumer's position, after the last batch it received, as a small JSON value."""
        epoch, step = self._opened.schedule.epoch_and_step(self.next)
        return make_position(self._opened.view, plan=self._opened.fingerprint, epoch=epoch, step=step)

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples so far that could not be used, as dicts."""
        return self._quarantine.dump()

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """Return the entries of ``quarantine`` from an index on, in a stable order."""
        return self._quarantine.dump(first)

    @property
    def counts(self) -> dict[str, int]:
        """Images yielded, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return dict(self._quarantine.counts)

    def _quarantine_bad_headers(self) -> None:
        """Add the rows that the index lists as unusable to quarantine, as skipped; only on the first rank."""
        view = self._opened.view
        if view.keys is not None or view.rank:
            return
        num_bad = 0
        for entry in _bad_headers(self._opened):
            self._quarantine.add(entry)
            num_bad += 1
        self._quarantine.count(skipped=num_bad)


class BaseFeed(ABC, Generic[T]):
    """Base class of feeds: iteration, position, counters and quarantine; a context manager, which closes the feed.

    A feed is read once. After an early exit, for instance by ``break``, iterating again continues with the next batch;
    a feed that was read to its end or closed raises RequestError. It works as the dataset of
    ``torch.utils.data.DataLoader(feed, batch_size=None)`` and of torchdata's ``StatefulDataLoader``, without worker
    processes.

    Args:
        opened: the view to read.
        feed_state: position and counters of the consumer.
    """

    _backend: Backend | None = None
    """Library that processes pixels; None if the plan's device decides."""

    def __init__(self, opened: OpenView, feed_state: FeedState) -> None:
        self._opened = opened
        self._feed_state = feed_state
        self._guard = IterationGuard()
        _log_dropped_boxes(opened)
        _register_as_dataset(type(self))

    @property
    def num_batches(self) -> int:
        """Batches of all epochs, from where the feed was opened; ``on_error: skip`` omits empty ones."""
        return self._feed_state.num_batches

    def __len__(self) -> int:
        """Return ``num_batches``: as with a DataLoader it stays the same while the feed is read."""
        return self.num_batches

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""
        return self._opened.index.classes

    def __iter__(self) -> Iterator[T]:
        """Yield the remaining batches; see the engine for further errors.

        Raises:
            RequestError: the feed was read to its end or closed, another loop over it is open, or this is another
                process than the one that opened it.
        """
        self._guard.check()
        return self._iterate()

    def _iterate(self) -> Iterator[T]:
        with self._guard.loop():
            yield from self._batches()

    @abstractmethod
    def _batches(self) -> Iterator[T]:
        """Yield the batches from the current position on."""

    def preview(
        self, *, samples: int = 8, versions: int = 4, seed: int = 0, keys: Sequence[str] | None = None
    ) -> Preview:
        """Show what this feed does to some of its samples: a notebook displays the result, ``save(path)`` writes a page.

        The feed stays where it is. See ``lightwell.preview`` for the arguments; versions begin with the feed's first epoch,
        and there are none where the view does not augment.
        """
        from ..preview.preview import ALL_SPLITS, preview

        view = self._opened.view
        if keys is None and view.keys is not None:
            keys = view.keys[:samples]
        return preview(
            self._opened.plan,
            samples=samples,
            versions=versions if view.augment else 0,
            split=view.split or ALL_SPLITS,
            seed=seed,
            keys=keys,
            first_epoch=view.first_epoch,
            backend=self._backend,
            index=self._opened.index,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position, under torch's name."""
        return self.position()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a position; counters and quarantine are reset.

        Raises:
            PlanError: not a position, or one of another plan or view; the feed is unchanged.
            RequestError: a loop over the feed is open, or the feed is closed.
        """
        self._guard.check_movable()
        self._feed_state = FeedState(self._opened, state_dict)
        self._guard.restart()

    def __reduce__(self) -> NoReturn:
        """Prevent pickling and copying.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            f"feed: expected to stay in the process that opened it, got a {type(self).__name__} to be pickled or copied; "
            "send plan, view and feed.position() and open a feed there, or use a DataLoader with num_workers=0"
        )

    @property
    def quarantine(self) -> list[Mapping[str, Any]]:
        """Samples so far that could not be used, as dicts."""
        return self._feed_state.quarantine

    def quarantine_from(self, first: int) -> list[Mapping[str, Any]]:
        """Return the entries of ``quarantine`` from an index on, in a stable order."""
        return self._feed_state.quarantine_from(first)

    @property
    def counts(self) -> dict[str, int]:
        """Images yielded, used, replaced and skipped so far; read = used + replaced, and skipped are in no batch."""
        return self._feed_state.counts

    def position(self) -> dict[str, Any]:
        """Return the consumer's position, after the last batch it received, as a small JSON value."""
        return self._feed_state.position()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End an open loop at its next batch and free the workers; the feed cannot be iterated any more."""
        self._guard.close()


def _register_as_dataset(feed: type[BaseFeed[Any]]) -> None:
    """Register a feed class as ``IterableDataset``, so that torch's DataLoader does not treat feeds as map-style."""
    from torch.utils.data import IterableDataset

    IterableDataset.register(feed)


def _log_dropped_boxes(opened: OpenView) -> None:
    """Log a warning if boxes of the index are dropped because they have no area."""
    if not opened.annotation_kinds.boxes or opened.view.rank:
        return
    found = count_boxes(opened.index.table)
    if found.num_dropped:
        _logger.warning(
            "%s: expected boxes with an area inside their images, got %s of %s without, which are dropped; the first are in %s",
            opened.plan.index,
            f"{found.num_dropped:,}",
            f"{found.num_boxes:,}",
            ", ".join(map(repr, found.keys)),
        )


def _bad_headers(opened: OpenView) -> Iterator[QuarantineEntry]:
    view = opened.view
    for row in opened.index.unusable(view.split).to_pylist():
        uri = public_uri(row["uri"] or "")
        yield QuarantineEntry(row["key"], uri, "index", row["status"], "", None, view.first_epoch)
