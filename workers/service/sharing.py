"""Schedules a batch stream that several consumers share: which batches are made, kept and delivered, and when.

Pure logic on batch numbers: no Ray, no pixels. Each consumer is at a number: that of the batch it is processing.

* A batch is made once a consumer is close enough to need it, and delivered to every consumer that still finds it. Batches
  that all have read are kept while there is space, so that a consumer that joins a little later shares them.
* Consumers at most ``window`` batches apart share a window. The one in front receives nothing from ``window`` batches
  beyond the one behind: it has to wait, and no batch is dropped.
* A consumer that has blocked others for more than ``max_lag_s`` in total is evicted: it blocks nobody, and batches that are
  gone by the time it requests them are made again for it. It rejoins once it is in front, or far behind the others.
* A consumer more than ``window`` batches behind all others, such as a late one, reads on its own until it has caught up:
  its batches are made again for it.
* A consumer without a heartbeat for ``heartbeat_timeout_s`` counts as dead and blocks nobody. Its position is remembered.
* At most ``window`` batches are kept for consumers that share a window, and at most ``window_bytes`` in total, except for
  one batch of each consumer that waits for it: a window of too few bytes is slow but cannot deadlock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...pipeline.errors import PlanError

State = Literal["attached", "evicted", "silent", "left"]
MAX_DEPARTED = 1000
"""Maximum number of consumers that are gone and whose positions are remembered."""


@dataclass(frozen=True, slots=True)
class SharingRules:
    """Limits of a shared stream."""

    window: int = 16
    """Maximum lead, in batches, of the fastest consumer of a window over the slowest."""
    window_bytes: int = 0
    """Memory limit for batches that are kept; 0 means a quarter of the cluster's smallest object store."""
    max_lag_s: float | None = None
    """Total seconds for which a consumer may block others before it is evicted; None means no limit."""
    heartbeat_timeout_s: float = 15.0
    """Seconds without a heartbeat after which a consumer counts as dead."""
    num_consumers: int = 1
    """Consumers to wait for before the first batch is made, so that all share from the start."""

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("window_bytes", 0), ("num_consumers", 1)):
            if getattr(self, name) < least:
                raise PlanError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}; raise it, or leave it out"
                )
        if self.heartbeat_timeout_s <= 0 or (self.max_lag_s is not None and self.max_lag_s < 0):
            raise PlanError(
                "heartbeat_timeout_s, max_lag_s: expected a positive number of seconds, got "
                f"{self.heartbeat_timeout_s}, {self.max_lag_s}; correct them"
            )


@dataclass
class Consumer:
    """State of one named consumer."""

    name: str
    session: str
    """Distinguishes its process from an earlier one of the same name."""
    number: int
    """Number of the batch that it is processing."""
    position: Mapping[str, Any]
    """The same as reported by its feed."""
    last_heartbeat_s: float
    state: State = "attached"
    requested: set[int] = field(default_factory=set)
    """Numbers of the batches that it has requested and not received."""
    waited_s: float = 0.0
    blocking_s: float = 0.0
    """Seconds for which others waited for it."""
    lag_s: float = 0.0
    """The same since it was last in front or evicted."""

    @property
    def is_alive(self) -> bool:
        """Whether it is attached, evicted or not."""
        return self.state in ("attached", "evicted")

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for the batch that it needs next."""
        return self.is_alive and self.number in self.requested


class StreamScheduler:
    """Scheduler of one shared stream. Not thread-safe; callers pass the time.

    Args:
        rules: the limits.
        end: number of batches.
        ahead: batches that are made before a consumer requests them.
        batch_bytes: maximum size of a batch.
    """

    def __init__(self, rules: SharingRules, end: int, *, ahead: int, batch_bytes: int) -> None:
        self._rules = rules
        self._end = end
        self._ahead = min(ahead, rules.window)
        self._batch_bytes = batch_bytes
        self._now_s: float | None = None
        self._making: set[int] = set()
        self._finished: dict[int, int] = {}  # bytes of each batch, the first finished first
        self._has_started = rules.num_consumers <= 1
        self.consumers: dict[str, Consumer] = {}
        """By name, in the order in which they attached."""

    @property
    def num_missing(self) -> int:
        """Consumers that have to attach before the first batch is made."""
        return 0 if self._has_started else max(0, self._rules.num_consumers - len(self._alive()))

    @property
    def finished(self) -> Mapping[int, int]:
        """Bytes of the finished batches that are kept, by number."""
        return self._finished

    def attach(self, name: str, session: str, number: int, position: Mapping[str, Any], now_s: float) -> None:
        """Attach a consumer; it takes the place of an earlier one of the same name."""
        self.advance_clock(now_s)
        before = self.consumers.pop(name, None)
        self.consumers[name] = Consumer(name, session, number, position, now_s)
        if before is not None:
            self.consumers[name].waited_s = before.waited_s
            self.consumers[name].blocking_s = before.blocking_s
        gone = [consumer.name for consumer in self.consumers.values() if not consumer.is_alive]
        for old in gone[: max(0, len(gone) - MAX_DEPARTED)]:
            del self.consumers[old]
        self._has_started = self._has_started or len(self._alive()) >= self._rules.num_consumers

    def heartbeat(
        self, name: str, session: str, number: int, position: Mapping[str, Any], now_s: float
    ) -> bool:
        """Record a consumer's heartbeat and position; return False if its name belongs to another process by now.

        An unknown consumer was attached before this process started. A silent one is attached again.
        """
        self.advance_clock(now_s)
        consumer = self.consumers.get(name)
        if consumer is None:
            self._has_started = True  # the consumers to wait for had attached before the restart
            self.attach(name, session, number, position, now_s)
            return True
        if consumer.session != session or consumer.state == "left":
            return False
        consumer.last_heartbeat_s = now_s
        if number >= consumer.number:  # heartbeats come from another thread and may arrive late
            consumer.number, consumer.position = number, position
        if consumer.state == "silent":
            consumer.state = "attached"
        consumer.requested = {requested for requested in consumer.requested if requested >= consumer.number}
        if not any(
            self._share_window(consumer, other) for other in self._alive() if other.number > consumer.number
        ):
            consumer.lag_s = 0.0
            if consumer.is_alive:
                consumer.state = "attached"
        return True

    def request(self, name: str, number: int) -> None:
        """Record that a consumer requests a batch."""
        self.consumers[name].requested.add(number)

    def mark_delivered(self, name: str, number: int) -> None:
        """Record that a consumer has received a batch."""
        self.consumers[name].requested.discard(number)

    def leave(self, name: str) -> None:
        """Detach a consumer; its position is remembered."""
        self.consumers[name].state = "left"
        self.consumers[name].requested.clear()

    def advance_clock(self, now_s: float) -> None:
        """Advance the clock: add up waiting times, evict laggards, detect missing heartbeats."""
        passed = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        for consumer in self._alive():
            if consumer.is_waiting:
                consumer.waited_s += passed
        for slow in self._blockers():
            slow.blocking_s += passed
            slow.lag_s += passed
            if self._rules.max_lag_s is not None and slow.lag_s > self._rules.max_lag_s:
                slow.state, slow.lag_s = "evicted", 0.0
        for consumer in self._alive():
            if now_s - consumer.last_heartbeat_s > self._rules.heartbeat_timeout_s:
                consumer.state = "silent"  # its requests stay: the process may only have been delayed

    def next_to_build(self) -> int | None:
        """Return the number of the batch to make next, the most urgent first; None if there is nothing to make."""
        if not self._has_started:
            return None
        wanted = sorted(
            (number - consumer.number, number)
            for consumer in self._alive()
            for number in self._to_build(consumer)
            if number not in self._making and number not in self._finished
        )
        if not wanted:
            return None
        self._making.add(wanted[0][1])
        return wanted[0][1]

    def mark_finished(self, number: int, num_bytes: int) -> None:
        """Record that a batch is finished."""
        self._making.discard(number)
        self._finished[number] = num_bytes

    def discard(self, number: int) -> None:
        """Record that a batch was lost or could not be made."""
        self._making.discard(number)
        self._finished.pop(number, None)

    def may_receive(self, name: str, number: int) -> bool:
        """Return whether a batch is finished and a consumer may receive it."""
        return number in self._finished and number < self._limit(self.consumers[name])

    def trim(self) -> list[int]:
        """Drop batches above the limits that no consumer needs, oldest first; return their numbers."""
        needed = {number for consumer in self._alive() for number in self._needed(consumer)}
        kept_bytes, num_kept, dropped = sum(self._finished.values()), len(self._finished), []
        for number, num_bytes in list(self._finished.items()):
            if num_kept <= self._rules.window and kept_bytes <= self._rules.window_bytes:
                break
            if number not in needed:
                del self._finished[number]
                kept_bytes, num_kept = kept_bytes - num_bytes, num_kept - 1
                dropped.append(number)
        return dropped

    def slowest(self) -> Consumer | None:
        """Return the consumer that limits the stream: one that blocks others, else the last one."""
        unfinished = [consumer for consumer in self._alive() if consumer.number < self._end]
        return next(self._blockers(), None) or min(
            unfinished, key=lambda consumer: consumer.number, default=None
        )

    def blockers(self) -> list[Consumer]:
        """List the consumers that others wait for right now."""
        return list(self._blockers())

    def _alive(self) -> list[Consumer]:
        return [consumer for consumer in self.consumers.values() if consumer.is_alive]

    def _share_window(self, behind: Consumer, front: Consumer) -> bool:
        return behind.number <= front.number <= behind.number + self._rules.window

    def _limit(self, consumer: Consumer) -> float:
        """Return the first batch number that a consumer may not receive yet."""
        others = (
            other
            for other in self._alive()
            if other is not consumer and other.state == "attached" and self._share_window(other, consumer)
        )
        return min((other.number + self._rules.window for other in others), default=math.inf)

    def _blockers(self) -> Iterator[Consumer]:
        """Yield the consumers that keep another from receiving its next batch."""
        for other in self._alive():
            if other.state == "attached" and any(
                consumer.is_waiting
                and consumer is not other
                and consumer.number == other.number + self._rules.window
                for consumer in self._alive()
            ):
                yield other

    def _to_build(self, consumer: Consumer) -> Iterator[int]:
        end = min(consumer.number + self._ahead, self._limit(consumer), self._end)
        free_bytes = (
            self._rules.window_bytes - sum(self._finished.values()) - len(self._making) * self._batch_bytes
        )
        for number in range(consumer.number, int(end)):
            if free_bytes >= self._batch_bytes or (number == consumer.number and consumer.is_waiting):
                yield number

    def _needed(self, consumer: Consumer) -> range:
        """Return the batch numbers to keep for a consumer: all that consumers in front of it may have received."""
        num_ahead = self._rules.window if consumer.state == "attached" else self._ahead
        return range(consumer.number, consumer.number + num_ahead)
