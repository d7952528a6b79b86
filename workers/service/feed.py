"""Feed of a service's batches, as read by one consumer."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

from ...pipeline.batch.batch import Batch
from ...pipeline.batch.buffers import BufferPool
from ...pipeline.errors import RunError
from ...pipeline.runtime.feed_state import FeedState
from ...pipeline.runtime.open_view import OpenView
from ..ray.blocks import Block, from_block
from ..ray.ray_errors import RETRIES
from ..ray.stats_aggregator import RemoteFeed, StatsAggregator
from .host import Service
from .messages import HEARTBEATS_PER_TIMEOUT, BatchReply, Heartbeat, ServedView

NUM_REQUESTED = 2
"""Batches that are requested ahead, to hide the latency of the service."""

LEAVE_TIMEOUT_S = 10.0
"""How long a consumer that leaves waits for the service's answer."""


class ServiceFeed(RemoteFeed[Batch]):
    """Batches of one view, made by a service; each consumer gets copies of its own.

    The feed sends its position with every request, and periodically from a background thread. A batch counts as done
    once the next one is requested: a consumer that is killed receives the batch it was processing again.

    Iterating raises:
        LightwellError: as ``LocalFeed`` raises.
        RunError: the service has ended or failed, or another process has taken the consumer's name.

    Args:
        service: the service.
        served: its plan and view.
        opened: the view that is read, of the served epochs.
        position: where to start.
        consumer: name of this consumer at the service.
    """

    def __init__(
        self,
        service: Service,
        served: ServedView,
        opened: OpenView,
        position: Mapping[str, Any] | None,
        consumer: str,
    ) -> None:
        super().__init__(opened, FeedState(opened, position))
        self._service = service
        self._first_number = (opened.view.first_epoch - served.view.first_epoch) * served.num_steps
        self._consumer = consumer
        self._heartbeat_interval_s = served.heartbeat_timeout_s / HEARTBEATS_PER_TIMEOUT
        self._session = ""
        self._last_heartbeat = self._make_heartbeat()
        self._left = threading.Event()
        self._stopped = False

    def __enter__(self) -> Self:
        self._attach()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a position, attached anew; raises as every feed does."""
        self._guard.check_movable()
        self._leave()
        super().load_state_dict(state_dict)

    def close(self) -> None:
        """Detach from the service; a feed that is read to its end does so by itself."""
        super().close()
        self._stopped = True
        self._leave()

    def _batches(self) -> Iterator[Batch]:
        self._stats = StatsAggregator()
        buffers = BufferPool()
        requested: deque[tuple[int, Any]] = deque()
        self._attach()
        try:
            with self._stats as stats:
                while self._feed_state.next < self._opened.schedule.num_batches and not self._stopped:
                    stats.enter("input")
                    block = self._next_block(requested)
                    stats.enter("batch")
                    result, worker_stats = from_block(block, buffers)
                    stats.update(worker_stats, block.nbytes)
                    del block
                    self._feed_state.record_batch(replace(result, number=result.number - self._first_number))
                    batch = result.batch
                    del result
                    if batch is not None:
                        stats.count_batch(batch.num_images)
                        yield batch
                        del batch
        finally:
            self._leave()

    def _make_heartbeat(self) -> Heartbeat:
        number = self._feed_state.next + self._first_number
        return Heartbeat(self._consumer, self._session, number, self._feed_state.position())

    def _attach(self) -> None:
        if self._session:
            return
        self._session = uuid.uuid4().hex
        self._last_heartbeat = self._make_heartbeat()
        self._service.call(self._service.actor.attach.remote(self._last_heartbeat))
        self._left = threading.Event()
        threading.Thread(
            target=self._send_heartbeats, args=(self._left,), name="lightwell-beat", daemon=True
        ).start()

    def _leave(self) -> None:
        import ray

        if not self._session:
            return
        self._left.set()
        heartbeat, self._session = self._make_heartbeat(), ""
        if ray.is_initialized():
            try:
                ray.get(self._service.actor.leave.remote(heartbeat), timeout=LEAVE_TIMEOUT_S)
            except ray.exceptions.RayError:
                return  # it has ended or is being restarted, and notices the missing heartbeats

    def _send_heartbeats(self, left: threading.Event) -> None:
        import ray

        while not left.wait(self._heartbeat_interval_s) and ray.is_initialized():
            self._service.actor.beat.remote(self._last_heartbeat)

    def _next_block(self, requested: deque[tuple[int, Any]]) -> Block:
        """Request batches ahead and fetch the next one through this node's object store."""
        import ray

        self._last_heartbeat = self._make_heartbeat()
        end = self._opened.schedule.num_batches + self._first_number
        first = requested[-1][0] + 1 if requested else self._last_heartbeat.number
        for number in range(first, min(self._last_heartbeat.number + NUM_REQUESTED, end)):
            requested.append((number, self._service.actor.next.remote(self._last_heartbeat, number)))
        number, reply_ref = requested.popleft()
        assert number == self._last_heartbeat.number, (number, self._last_heartbeat)
        for _ in range(RETRIES + 1):
            reply: BatchReply = self._service.call(reply_ref)
            if reply.error is not None:
                raise reply.error
            if not reply.block:
                raise RunError(
                    f"service: expected {self._consumer!r} to be this process, got another one that has taken the name; "
                    "give every job its own name: service://NAME/CONSUMER"
                )
            try:
                return ray.get(reply.block[0])
            except ray.exceptions.ObjectLostError:  # with its node, or with the server that owned it
                reply_ref = self._service.actor.next.remote(self._last_heartbeat, number, reply.version)
        raise RunError(
            f"service: batch {number} from {self._service.name!r} was lost {RETRIES + 1} times; nodes die, or their object "
            "stores are too small: check `ray status`"
        )
