"""What long work shows: a line a minute in logs, one line that changes in place on a terminal."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from lightwell.pipeline.jobs import progress
from lightwell.pipeline.jobs.progress import LineConsole, TerminalConsole, console_for, duration
from lightwell.pipeline.monitor.stats import FeedStats

STATS = FeedStats(
    wall_s=1.0, first_batch_s=0.1, cpu_s=1.0, num_threads=1, num_samples=4000, num_batches=1000, samples_per_second=31.4,
    samples_per_second_now=28.6, cache_hits=0, replaced=0, threads=(), queues=(), memory_bytes=0, peak_bytes=0,
)  # fmt: skip


@dataclass
class Work:
    """Empty batches with the state of a feed."""

    num_batches: int
    told: FeedStats = STATS

    def stats(self) -> FeedStats:
        return self.told

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.num_batches))


def test_a_log_hears_of_long_work_once_a_minute_and_not_at_all_where_something_else_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    console = LineConsole(stream)
    for number in console.track(Work(40), "train"):
        clock[0] += 10.0
        if number == 22:
            console.print("epoch 1")
            for _ in console.track(Work(3), "val"):
                clock[0] += 10.0
    assert stream.getvalue().splitlines() == [
        "train: 15 % done, 4,000 images, 31 a second, about 6 minutes left",
        "train: 30 % done, 4,000 images, 31 a second, about 5 minutes left",
        "train: 45 % done, 4,000 images, 31 a second, about 4 minutes left",
        "epoch 1",
        "train: 65 % done, 4,000 images, 31 a second, about 3 minutes left",
        "train: 80 % done, 4,000 images, 31 a second, about 88 seconds left",
        "train: 95 % done, 4,000 images, 31 a second, about 22 seconds left",
    ]


def test_replaced_images_are_told_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL_S", 0.0)
    stream = io.StringIO()
    list(LineConsole(stream).track(Work(1, replace(STATS, replaced=2)), "audit"))
    assert ", 2 replaced, about " in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "1 second"), (1.4, "1 second"), (89, "89 seconds"), (100, "2 minutes"), (316, "5 minutes"),
        (3600, "1 hour"), (7800, "2 hours and 10 minutes"), (3659, "1 hour and 1 minute"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def test_a_terminal_shows_one_line_for_the_innermost_work_and_what_is_said_above_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    console, shown = on_a_terminal()
    with shown as received:
        for number in console.track(Work(3), "train"):
            if number == 1:
                console.print("epoch [1] of 2")
                assert len(list(console.track(Work(2, replace(STATS, replaced=7)), "val"))) == 2
        console.print("the end")
    text = received.decode()
    assert "train" in text
    assert "7 replaced" in text
    assert "epoch [1] of 2" in text.replace("\x1b[2K", "").replace("\r", "\n").split("\n")
    assert "the end" in text.rsplit("train", 1)[1]
    assert "\x1b[1A" not in text, "the cursor goes up where there are two lines"


class Received:
    """What comes out of a terminal, read while it is written."""

    def __init__(self, master: int, stream: Any) -> None:
        self._master, self._stream, self._bytes = master, stream, bytearray()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        try:
            while got := os.read(self._master, 4096):
                self._bytes += got
        except OSError:  # the other end was closed
            return

    def __enter__(self) -> bytearray:
        self._thread.start()
        return self._bytes

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
        self._thread.join()
        os.close(self._master)


def on_a_terminal() -> tuple[TerminalConsole, Received]:
    master, slave = os.openpty()
    stream = os.fdopen(slave, "w")
    console = console_for(stream, quiet=False)
    assert isinstance(console, TerminalConsole)
    return console, Received(master, stream)
