"""Rules of the stream scheduler, without a cluster: time and batches are numbers."""

from __future__ import annotations

import pytest
from lightwell.pipeline.errors import PlanError
from lightwell.workers.service.sharing import SharingRules, StreamScheduler

END = 40
BATCH_BYTES = 100


class Stage:
    """Consumers that read as fast as allowed, with workers that take no time."""

    def __init__(self, ahead: int = 2, end: int = END, **rules: float | None) -> None:
        content = {"window": 4, "window_bytes": 10_000, **rules}
        self.scheduler = StreamScheduler(SharingRules(**content), end, ahead=ahead, batch_bytes=BATCH_BYTES)  # type: ignore[arg-type]
        self.now_s = 0.0
        self.made: list[int] = []
        self.most_kept = 0

    def join(self, name: str, number: int = 0) -> None:
        self.scheduler.attach(name, name, number, {"number": number}, self.now_s)

    def at(self, name: str) -> int:
        return self.scheduler.consumers[name].number

    def want(self, name: str) -> None:
        self.scheduler.request(name, self.at(name))
        self.make()

    def make(self) -> None:
        while (number := self.scheduler.next_to_build()) is not None:
            self.made.append(number)
            self.scheduler.mark_finished(number, BATCH_BYTES)
        self.scheduler.trim()
        self.most_kept = max(self.most_kept, len(self.scheduler.finished))

    def read(self, name: str, num_batches: int) -> int:
        """Let a consumer read; returns how many it got before it had to wait."""
        for got in range(num_batches):
            number = self.at(name)
            self.want(name)
            if not self.scheduler.may_receive(name, number):
                return got
            self.scheduler.mark_delivered(name, number)
            self.scheduler.heartbeat(name, name, number + 1, {"number": number + 1}, self.now_s)
            self.make()
        return num_batches

    def wait(self, seconds: float, *names: str) -> None:
        """Let time pass, while these consumers give signs of life."""
        self.now_s += seconds
        for name in names:
            consumer = self.scheduler.consumers[name]
            self.scheduler.heartbeat(name, name, consumer.number, consumer.position, self.now_s)
        self.scheduler.advance_clock(self.now_s)
        self.make()


def test_consumers_that_take_turns_have_every_batch_made_once() -> None:
    stage = Stage()
    for name in "abcd":
        stage.join(name)
    for _ in range(END):
        for name in "abcd":
            assert stage.read(name, 1) == 1
    assert stage.made == list(range(END))
    assert stage.most_kept <= 4


def test_a_slow_consumer_blocks_the_others_at_the_window_and_loses_nothing() -> None:
    stage = Stage()
    stage.join("fast")
    stage.join("slow")
    assert stage.read("fast", 10) == 4
    assert [consumer.name for consumer in stage.scheduler.blockers()] == ["slow"]
    stage.wait(3.0, "fast", "slow")
    assert stage.scheduler.consumers["fast"].waited_s == pytest.approx(3.0)
    assert stage.scheduler.consumers["slow"].blocking_s == pytest.approx(3.0)
    assert stage.read("slow", 1) == 1
    assert stage.read("fast", 10) == 1
    while stage.at("slow") < END:
        assert stage.read("slow", 1) == 1
        stage.read("fast", END)
    assert stage.made == list(range(END))
    assert stage.most_kept <= 4


def test_a_laggard_is_evicted_and_its_batches_are_made_again() -> None:
    stage = Stage(max_lag_s=5.0)
    stage.join("fast")
    stage.join("slow")
    assert stage.read("fast", 10) == 4
    stage.wait(4.0, "fast", "slow")
    assert stage.read("fast", 10) == 0
    stage.wait(2.0, "fast", "slow")
    assert stage.scheduler.consumers["slow"].state == "evicted"
    assert stage.read("fast", 20) == 20
    assert stage.made == list(range(24 + 2))
    assert stage.read("slow", 3) == 3
    assert stage.made[26:] == [2, 3, 4], "its next two were still there"
    assert stage.scheduler.consumers["slow"].state == "attached", "far behind it holds nobody back anyway"
    assert stage.read("fast", 4) == 4


def test_a_late_joiner_shares_what_is_kept_and_has_the_rest_made_again_until_it_caught_up() -> None:
    stage = Stage()
    stage.join("early")
    assert stage.read("early", 20) == 20
    stage.join("late", 10)
    assert stage.read("late", 4) == 4
    assert stage.made == [*range(22), 10, 11, 12, 13, 14, 15]
    assert stage.read("early", 2) == 2, "so far apart they do not wait for each other"
    while stage.at("late") < stage.at("early"):
        assert stage.read("late", 1) == 1
    num_made = len(stage.made)
    assert stage.read("late", 4) == 4
    assert stage.read("early", 4) == 4
    assert stage.at("early") == stage.at("late") == 26
    assert stage.made[num_made:] == [24, 25, 26, 27], "each once, two of them ahead"


def test_who_joins_within_the_window_has_nothing_made_again() -> None:
    stage = Stage()
    stage.join("early")
    assert stage.read("early", 2) == 2
    stage.join("late")
    assert stage.read("late", 4) == 4
    assert stage.made == list(range(6))


def test_a_silent_consumer_blocks_nobody_and_its_position_is_remembered() -> None:
    stage = Stage(heartbeat_timeout_s=15.0)
    stage.join("lives")
    stage.join("dead")
    assert stage.read("dead", 1) == 1
    assert stage.read("lives", 10) == 5
    stage.wait(16.0, "lives")
    stage.wait(0.1, "lives")
    assert stage.scheduler.consumers["dead"].state == "silent"
    assert stage.read("lives", 10) == 10
    assert stage.scheduler.consumers["dead"].position == {"number": 1}
    stage.scheduler.attach("dead", "its next process", 1, {"number": 1}, stage.now_s)
    assert not stage.scheduler.heartbeat("dead", "dead", 2, {}, stage.now_s), (
        "the name belongs to the new process"
    )
    stage.want("dead")
    assert stage.scheduler.may_receive("dead", 1)


def test_a_process_that_was_only_held_up_is_back_with_what_it_had_asked_for() -> None:
    stage = Stage(heartbeat_timeout_s=15.0)
    stage.join("held up")
    stage.want("held up")
    stage.wait(16.0)
    assert not stage.scheduler.consumers["held up"].is_alive
    stage.wait(1.0, "held up")
    assert stage.scheduler.consumers["held up"].is_waiting
    assert stage.scheduler.may_receive("held up", 0)


def test_a_window_of_too_few_bytes_slows_down_and_never_locks_up() -> None:
    stage = Stage(window_bytes=BATCH_BYTES // 2)
    stage.join("a")
    stage.join("b", 20)
    assert stage.read("a", 10) == 10
    assert stage.read("b", 10) == 10
    assert stage.made == [*range(10), *range(20, 30)]
    assert stage.most_kept <= 2


def test_nothing_is_made_before_all_have_come() -> None:
    stage = Stage(num_consumers=2)
    stage.join("a")
    assert stage.read("a", 1) == 0
    assert stage.scheduler.num_missing == 1
    stage.join("b")
    assert stage.read("a", 1) == stage.read("b", 1) == 1
    stage.scheduler.leave("b")
    assert stage.read("a", 10) == 10


def test_after_a_restart_of_the_server_consumers_continue_at_their_positions() -> None:
    stage = Stage(num_consumers=2)
    assert stage.scheduler.heartbeat("a", "a", 7, {"number": 7}, 0.0)
    assert stage.read("a", 3) == 3
    assert stage.made[:3] == [7, 8, 9]


def test_a_batch_that_is_lost_is_made_again() -> None:
    stage = Stage()
    stage.join("a")
    stage.want("a")
    stage.scheduler.discard(0)
    assert not stage.scheduler.may_receive("a", 0)
    stage.make()
    assert stage.scheduler.may_receive("a", 0)
    assert stage.made.count(0) == 2


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"num_consumers": 0}, {"heartbeat_timeout_s": 0.0}, {"max_lag_s": -1.0}]
)
def test_bounds_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="expected"):
        SharingRules(**wrong)  # type: ignore[arg-type]
