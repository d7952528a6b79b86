"""Who of several consumers gets which batch when, and which are made and kept for that: numbers only, no Ray, no pixels.

The rules, for consumers that stand at numbers of batches, each at the one it has not come back from:

* A batch is made when a consumer is near enough to want it, once for all that find it still there. What all have had
  stays as long as there is room, so that who joins a little later shares it too.
* Two consumers go together while they are no more than ``window`` batches apart. The one in front is given nothing that
  lies ``window`` batches before the one behind: that one holds it back, and nothing is dropped for it.
* Who kept others waiting for longer than ``max_lag_s`` in all is cut loose: it holds nobody back, and what is gone by
  the time it asks is made again for it. It goes with the others again once it stands in front or far behind them.
* Who stands more than ``window`` batches behind all others, as one that joins late may, goes on its own until it has
  caught up: its batches are made again for it.
* Who was not heard of for ``silent_s`` counts as dead: it holds nobody back. Where it stood stays known.
* No more than ``window`` batches are kept for consumers that go together, and no more than ``window_bytes`` in all,
  save for one batch of each consumer that waits for it: a window of bytes too small slows down, and never locks up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ...pipeline.errors import PlanError

State = Literal["attached", "cut loose", "silent", "left"]
KEPT_NAMES = 1000
"""Consumers that are gone whose positions stay known."""


@dataclass(frozen=True, slots=True)
class SharingRules:
    """The bounds of what is shared."""

    window: int = 16
    """Batches that the fastest consumer may be before the slowest that it goes together with."""
    window_bytes: int = 0
    """What all batches that are kept may take; 0 is a quarter of the smallest object store of the cluster."""
    max_lag_s: float | None = None
    """Seconds for which a consumer may keep others waiting in all before it is cut loose; None is for ever."""
    silent_s: float = 15.0
    """Seconds without a sign of life after which a consumer counts as dead."""
    num_consumers: int = 1
    """Nothing is made before so many have come, so that all share from the first batch on."""

    def __post_init__(self) -> None:
        for name, least in (("window", 1), ("window_bytes", 0), ("num_consumers", 1)):
            if getattr(self, name) < least:
                raise PlanError(
                    f"{name}: expected at least {least}, got {getattr(self, name)}; give more, or leave it out"
                )
        if self.silent_s <= 0 or (self.max_lag_s is not None and self.max_lag_s < 0):
            raise PlanError(f"silent_s, max_lag_s: expected seconds, got {self.silent_s}, {self.max_lag_s}")


@dataclass
class Consumer:
    """One who takes batches, under a name."""

    name: str
    session: str
    """Tells its process from an earlier one of the same name."""
    number: int
    """Of the batch that it has not come back from."""
    position: Mapping[str, Any]
    """The same as its feed says it."""
    heard_s: float
    state: State = "attached"
    asked: set[int] = field(default_factory=set)
    """What it waits for, now or ahead."""
    waited_s: float = 0.0
    kept_waiting_s: float = 0.0
    """For how long others waited for it."""
    blamed_s: float = 0.0
    """The same since it was in front or cut loose."""

    @property
    def lives(self) -> bool:
        """It is there and may ask."""
        return self.state in ("attached", "cut loose")

    @property
    def waits(self) -> bool:
        """It has nothing to work on."""
        return self.lives and self.number in self.asked


class Sharing:
    """The books of one stream. One thread uses them; time is what it is told.

    Args:
        rules: the bounds.
        end: the number of batches.
        ahead: batches that are made before a consumer asks.
        batch_bytes: what a batch takes at most.
    """

    def __init__(self, rules: SharingRules, end: int, *, ahead: int, batch_bytes: int) -> None:
        self._rules = rules
        self._end = end
        self._ahead = min(ahead, rules.window)
        self._batch_bytes = batch_bytes
        self._now_s: float | None = None
        self._making: set[int] = set()
        self._kept: dict[int, int] = {}  # bytes of each batch, the first finished first
        self._begun = rules.num_consumers <= 1
        self.consumers: dict[str, Consumer] = {}
        """By name, in the order in which they came."""

    @property
    def num_missing(self) -> int:
        """Consumers that have to come before anything is made."""
        return 0 if self._begun else max(0, self._rules.num_consumers - len(self._living()))

    @property
    def kept(self) -> Mapping[int, int]:
        """Bytes of the batches that are kept."""
        return self._kept

    def attach(self, name: str, session: str, number: int, position: Mapping[str, Any], now_s: float) -> None:
        """Let a consumer in; one of the same name that was there before is the same consumer from now on."""
        self.pass_time(now_s)
        before = self.consumers.pop(name, None)
        self.consumers[name] = Consumer(name, session, number, position, now_s)
        if before is not None:
            self.consumers[name].waited_s = before.waited_s
            self.consumers[name].kept_waiting_s = before.kept_waiting_s
        gone = [one.name for one in self.consumers.values() if not one.lives]
        for old in gone[: max(0, len(gone) - KEPT_NAMES)]:
            del self.consumers[old]
        self._begun = self._begun or len(self._living()) >= self._rules.num_consumers

    def stand(self, name: str, session: str, number: int, position: Mapping[str, Any], now_s: float) -> bool:
        """Hear where a consumer stands; False where its name belongs to another process by now.

        One that nobody knows was there before this process was, and one that was silent is back.
        """
        self.pass_time(now_s)
        one = self.consumers.get(name)
        if one is None:
            self._begun = True  # whoever was waited for has come before
            self.attach(name, session, number, position, now_s)
            return True
        if one.session != session or one.state == "left":
            return False
        one.heard_s = now_s
        if number >= one.number:  # signs of life come from a thread of their own and may be overtaken
            one.number, one.position = number, position
        if one.state == "silent":
            one.state = "attached"
        one.asked = {asked for asked in one.asked if asked >= one.number}
        if not any(self._together(one, other) for other in self._living() if other.number > one.number):
            one.blamed_s = 0.0
            if one.lives:
                one.state = "attached"
        return True

    def ask(self, name: str, number: int) -> None:
        """Note that a consumer wants a batch."""
        self.consumers[name].asked.add(number)

    def hand(self, name: str, number: int) -> None:
        """Note that it has it."""
        self.consumers[name].asked.discard(number)

    def leave(self, name: str) -> None:
        """Let a consumer go."""
        self.consumers[name].state = "left"
        self.consumers[name].asked.clear()

    def pass_time(self, now_s: float) -> None:
        """Let time pass: who waits for whom, who is silent, who is cut loose."""
        passed = 0.0 if self._now_s is None else max(0.0, now_s - self._now_s)
        self._now_s = now_s
        for one in self._living():
            if one.waits:
                one.waited_s += passed
        for slow in self._holding():
            slow.kept_waiting_s += passed
            slow.blamed_s += passed
            if self._rules.max_lag_s is not None and slow.blamed_s > self._rules.max_lag_s:
                slow.state, slow.blamed_s = "cut loose", 0.0
        for one in self._living():
            if now_s - one.heard_s > self._rules.silent_s:
                one.state = "silent"  # what it asked for stays: it may only have been held up

    def begin(self) -> int | None:
        """Take the number of the batch to make next, the most urgent first; None where nothing is to be made."""
        if not self._begun:
            return None
        wanted = sorted(
            (number - one.number, number)
            for one in self._living()
            for number in self._wanted(one)
            if number not in self._making and number not in self._kept
        )
        if not wanted:
            return None
        self._making.add(wanted[0][1])
        return wanted[0][1]

    def keep(self, number: int, num_bytes: int) -> None:
        """Note that a batch is finished."""
        self._making.discard(number)
        self._kept[number] = num_bytes

    def drop(self, number: int) -> None:
        """Note that a batch is lost or could not be made."""
        self._making.discard(number)
        self._kept.pop(number, None)

    def may_have(self, name: str, number: int) -> bool:
        """Say whether a consumer may be handed a batch that is finished."""
        return number in self._kept and number < self._horizon(self.consumers[name])

    def surplus(self) -> list[int]:
        """Drop what has no room any more and return the numbers: of what nobody needs, the first finished first."""
        needed = {number for one in self._living() for number in self._needed(one)}
        kept_bytes, num_kept, dropped = sum(self._kept.values()), len(self._kept), []
        for number, num_bytes in list(self._kept.items()):
            if num_kept <= self._rules.window and kept_bytes <= self._rules.window_bytes:
                break
            if number not in needed:
                del self._kept[number]
                kept_bytes, num_kept = kept_bytes - num_bytes, num_kept - 1
                dropped.append(number)
        return dropped

    def slowest(self) -> Consumer | None:
        """Return the consumer that the stream goes by: who holds others back, else who is last."""
        living = [one for one in self._living() if one.number < self._end]
        return next(self._holding(), None) or min(living, key=lambda one: one.number, default=None)

    def holding(self) -> list[Consumer]:
        """List those that others wait for right now."""
        return list(self._holding())

    def _living(self) -> list[Consumer]:
        return [one for one in self.consumers.values() if one.lives]

    def _together(self, behind: Consumer, front: Consumer) -> bool:
        return behind.number <= front.number <= behind.number + self._rules.window

    def _horizon(self, one: Consumer) -> float:
        """Return the first number that a consumer may not have yet."""
        others = (
            other
            for other in self._living()
            if other is not one and other.state == "attached" and self._together(other, one)
        )
        return min((other.number + self._rules.window for other in others), default=math.inf)

    def _holding(self) -> Iterator[Consumer]:
        """Yield those that keep another from the very batch that it waits for."""
        for other in self._living():
            if other.state == "attached" and any(
                one.waits and one is not other and one.number == other.number + self._rules.window
                for one in self._living()
            ):
                yield other

    def _wanted(self, one: Consumer) -> Iterator[int]:
        end = min(one.number + self._ahead, self._horizon(one), self._end)
        room = self._rules.window_bytes - sum(self._kept.values()) - len(self._making) * self._batch_bytes
        for number in range(one.number, int(end)):
            if room >= self._batch_bytes or (number == one.number and one.waits):
                yield number

    def _needed(self, one: Consumer) -> range:
        """Return what is kept for a consumer: all that those before it may have been given."""
        reach = self._rules.window if one.state == "attached" else self._ahead
        return range(one.number, one.number + reach)
