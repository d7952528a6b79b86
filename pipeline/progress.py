"""What long work shows: a progress bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from .text import printable

if TYPE_CHECKING:
    from .engine.stats import FeedStats
    from .jobs import Stream

T = TypeVar("T")

PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain progress lines."""


class SilentConsole:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:  # noqa: ARG002
        """Pass batches on."""
        return iter(batches)

    def count(self, label: str) -> Callable[[int, int], None]:  # noqa: ARG002
        """Return a callback that shows nothing."""
        return lambda done, total: None  # noqa: ARG005


class LineConsole(SilentConsole):
    """Plain lines on standard error, for logs and pipes: at most one progress line in ten seconds."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def say(self, line: str) -> None:
        """Print one line."""
        print(printable(line), file=self._stream, flush=True)

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Pass batches on and say now and then how far it is."""
        started = spoke = time.monotonic()
        for number, batch in enumerate(batches, 1):
            yield batch
            if (now := time.monotonic()) - spoke >= PLAIN_INTERVAL_S:
                spoke = now
                self.say(_progress_line(label, number, batches, now - started))

    def count(self, label: str) -> Callable[[int, int], None]:
        """Return a callback ``(done, total)`` that prints at the end."""

        def show(done: int, total: int) -> None:
            if done == total:
                self.say(f"{label}: {done:,} of {total:,}")

        return show


class TerminalConsole(LineConsole):
    """A progress bar that is redrawn in place."""

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Pass batches on under a bar with images, rate, time left and replaced images."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn(
                "{task.fields[images]:,} images  {task.fields[now]:,.0f}/s now, {task.fields[rate]:,.0f}/s  "
                "{task.fields[replaced]} replaced  {task.fields[slow]}"
            ),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=RichConsole(file=self._stream), transient=True) as progress:
            task = progress.add_task(label, total=batches.num_batches, **_fields(batches.stats()))
            for batch in batches:
                yield batch
                progress.update(task, advance=1, **_fields(batches.stats()))


def _fields(stats: FeedStats) -> dict[str, Any]:
    return {
        "images": stats.num_samples,
        "now": stats.samples_per_second_now,
        "rate": stats.samples_per_second,
        "replaced": stats.replaced,
        "slow": stats.bottleneck(),
    }


def _progress_line(label: str, number: int, batches: Stream[Any], seconds: float) -> str:
    left = (batches.num_batches - number) * seconds / number
    stats = batches.stats()
    return (
        f"{label}: {stats.num_samples:,} images, {stats.samples_per_second_now:,.0f} a second now and "
        f"{stats.samples_per_second:,.0f} since the start, {left:.0f} s left, {stats.replaced} replaced; "
        f"{stats.bottleneck()}"
    )


def console_for(stream: TextIO | None = None, *, quiet: bool) -> SilentConsole:
    """Choose the console that suits where the output goes."""
    stream = stream or sys.stderr
    if quiet:
        return SilentConsole()
    return TerminalConsole(stream) if stream.isatty() else LineConsole(stream)
