"""The batches of a service, as one consumer reads them, with the books of a feed."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.errors import RunError
from ...pipeline.runtime.feed_state import FeedState
from ...pipeline.runtime.open_view import OpenView
from ..ray.blocks import from_block
from ..ray.stats_aggregator import RemoteFeed, StatsAggregator
from ..ray.stream import RETRIES
from .host import Service
from .messages import BEATS, Handed, Served, Stand

if TYPE_CHECKING:
    import pyarrow as pa

NUM_ASKED = 2
"""Batches that are asked for before they are needed, so that the way to the service costs no time."""

LEAVE_S = 10.0
"""How long a consumer that leaves waits for the service to hear it."""


class ServiceFeed(RemoteFeed[Batch]):
    """Batches of one view that a service makes; they are the consumer's own, and no other consumer's.

    It tells the service where it stands whenever it asks, and now and then by a thread of its own. A batch counts as
    done once the next is asked for: of a consumer that is killed, the batch at work is given again.

    Iterating raises:
        LightwellError: as ``LocalFeed`` raises.
        RunError: the service has ended or failed, or another process goes by the same name now.

    Args:
        service: where the batches come from.
        served: what it serves.
        opened: the view that is read, of the served epochs.
        position: where to start.
        consumer: the name by which the service knows this feed.
    """

    def __init__(
        self,
        service: Service,
        served: Served,
        opened: OpenView,
        position: Mapping[str, Any] | None,
        consumer: str,
    ) -> None:
        super().__init__(opened, FeedState(opened, position))
        self._service = service
        self._before = (opened.view.first_epoch - served.view.first_epoch) * served.num_steps
        self._consumer = consumer
        self._beat_s = served.silent_s / BEATS
        self._session = ""
        self._stand = self._here()
        self._ended = threading.Event()
        self._stopped = False

    def __enter__(self) -> Self:
        self._attach()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a position, as a consumer that comes anew; raises as every feed does."""
        self._guard.check_movable()
        self._leave()
        super().load_state_dict(state_dict)

    def close(self) -> None:
        """Leave the service; a feed that is read to its end does so itself."""
        super().close()
        self._stopped = True
        self._leave()

    def _batches(self) -> Iterator[Batch]:
        self._stats = StatsAggregator()
        buffers = BufferPool()
        asked: deque[tuple[int, Any]] = deque()
        self._attach()
        try:
            with self._stats as stats:
                while self._feed_state.next < self._opened.schedule.num_batches and not self._stopped:
                    stats.enter("input")
                    block = self._next_block(asked)
                    stats.enter("batch")
                    result, worker_stats = from_block(block, buffers)
                    stats.update(worker_stats, block.nbytes)
                    del block
                    self._feed_state.record_batch(replace(result, number=result.number - self._before))
                    batch = result.batch
                    del result
                    if batch is not None:
                        stats.count_batch(batch.num_images)
                        yield batch
                        del batch
        finally:
            self._leave()

    def _here(self) -> Stand:
        number = self._feed_state.next + self._before
        return Stand(self._consumer, self._session, number, self._feed_state.position())

    def _attach(self) -> None:
        if self._session:
            return
        self._session = uuid.uuid4().hex
        self._stand = self._here()
        self._service.ask(self._service.actor.attach.remote(self._stand))
        self._ended = threading.Event()
        threading.Thread(target=self._beat, args=(self._ended,), name="lightwell-beat", daemon=True).start()

    def _leave(self) -> None:
        import ray

        if not self._session:
            return
        self._ended.set()
        stand, self._session = self._here(), ""
        if ray.is_initialized():
            try:
                ray.get(self._service.actor.leave.remote(stand), timeout=LEAVE_S)
            except ray.exceptions.RayError:
                return  # it has ended, or is being started again: it will find out by the silence

    def _beat(self, ended: threading.Event) -> None:
        import ray

        while not ended.wait(self._beat_s) and ray.is_initialized():
            self._service.actor.beat.remote(self._stand)

    def _next_block(self, asked: deque[tuple[int, Any]]) -> pa.Table:
        """Ask ahead and fetch the next batch from the object store of this node."""
        import ray

        self._stand = self._here()
        end = self._opened.schedule.num_batches + self._before
        first = asked[-1][0] + 1 if asked else self._stand.number
        for number in range(first, min(self._stand.number + NUM_ASKED, end)):
            asked.append((number, self._service.actor.next.remote(self._stand, number)))
        number, answer = asked.popleft()
        assert number == self._stand.number, (number, self._stand)
        for _ in range(RETRIES + 1):
            handed: Handed = self._service.ask(answer)
            if handed.error is not None:
                raise handed.error
            if not handed.block:
                raise RunError(
                    f"service: expected {self._consumer!r} to be this process, got another that goes by the same name now; "
                    "give every job a name of its own: service://NAME/CONSUMER"
                )
            try:
                return ray.get(handed.block[0])
            except ray.exceptions.ObjectLostError:  # with its node, or with the server that made it
                answer = self._service.actor.next.remote(self._stand, number, handed.version)
        raise RunError(
            f"service: batch {number} was lost {RETRIES + 1} times on its way from {self._service.name!r}; nodes of the "
            "cluster die, or their object stores are too small: `ray status` tells"
        )
