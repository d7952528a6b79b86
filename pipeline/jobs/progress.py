"""Progress output: a bar on a terminal, one plain line per minute elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from ..text import printable

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ..monitor.stats import FeedStats
    from .contracts import Stream

T = TypeVar("T")

PLAIN_INTERVAL_S = 60.0
"""Seconds between two plain progress lines."""


class SilentConsole:
    """Console without output."""

    def print(self, line: str) -> None:
        """Drop the line."""

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:  # noqa: ARG002
        """Yield the batches."""
        return iter(batches)

    def count(self, label: str) -> Callable[[int, int], None]:  # noqa: ARG002
        """Return a callback that shows nothing."""
        return lambda done, total: None  # noqa: ARG005


class LineConsole(SilentConsole):
    """Plain lines on standard error, for logs and pipes: a progress line after a minute without output."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._last_print_s = time.monotonic()

    def print(self, line: str) -> None:
        """Print one line."""
        self._last_print_s = time.monotonic()
        print(printable(line), file=self._stream, flush=True)

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Yield the batches and print a progress line at intervals."""
        started = self._last_print_s = time.monotonic()
        for number, batch in enumerate(batches, 1):
            yield batch
            if (now := time.monotonic()) - self._last_print_s >= PLAIN_INTERVAL_S:
                self.print(progress_line(label, number, batches, now - started))

    def count(self, label: str) -> Callable[[int, int], None]:
        """Return a callback ``(done, total)`` that prints at the end."""

        def show(done: int, total: int) -> None:
            if done == total:
                self.print(f"{label}: {done:,} of {total:,}")

        return show


class TerminalConsole(LineConsole):
    """One progress bar, for the innermost iteration that is tracked; printed lines appear above it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._progress: RichProgress | None = None
        self._tasks: list[TaskID] = []

    def print(self, line: str) -> None:
        """Print one line."""
        if self._progress is None:
            super().print(line)
        else:
            self._progress.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def track(self, batches: Stream[T], label: str) -> Iterator[T]:
        """Yield the batches and show a bar with images, rate, replaced images and remaining time."""
        with self._task(label, batches) as show:
            for batch in batches:
                yield batch
                show()

    @contextmanager
    def _task(self, label: str, batches: Stream[Any]) -> Iterator[Callable[[], None]]:
        """Show a task until it ends, in place of the enclosing one."""
        progress = self._progress = self._progress or self._start_bar()
        if self._tasks:
            progress.update(self._tasks[-1], visible=False)
        task = progress.add_task(label, total=batches.num_batches, throughput=_throughput(batches.stats()))
        self._tasks.append(task)
        try:
            yield lambda: progress.update(task, advance=1, throughput=_throughput(batches.stats()))
        finally:
            self._tasks.remove(task)
            progress.remove_task(task)
            if self._tasks:
                progress.update(self._tasks[-1], visible=True)
            else:
                progress.stop()
                self._progress = None

    def _start_bar(self) -> RichProgress:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[throughput]}", markup=False),
            TimeRemainingColumn(),
        )
        progress = Progress(*columns, console=RichConsole(file=self._stream), transient=True)
        progress.start()
        return progress


def _throughput(stats: FeedStats) -> str:
    text = f"{stats.num_samples:,} images, {stats.samples_per_second:,.0f} a second"
    return f"{text}, {stats.replaced:,} replaced" if stats.replaced else text


def progress_line(label: str, number: int, batches: Stream[Any], seconds: float) -> str:
    """Format progress after a number of batches and seconds."""
    left = (batches.num_batches - number) * seconds / number
    return f"{label}: {100 * number / batches.num_batches:.0f} % done, {_throughput(batches.stats())}, about {duration(left)} left"


def duration(seconds: float) -> str:
    """Format a duration: ``40 seconds``, ``5 minutes``, ``2 hours and 10 minutes``."""
    if seconds < 90:
        return _plural(max(1, round(seconds)), "second")
    hours, minutes = divmod(round(seconds / 60), 60)
    parts = [_plural(hours, "hour")] * bool(hours) + [_plural(minutes, "minute")] * bool(minutes)
    return " and ".join(parts)


def _plural(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def console_for(stream: TextIO | None = None, *, quiet: bool) -> SilentConsole:
    """Return the console for an output stream: bar, plain lines or none."""
    stream = stream or sys.stderr
    if quiet:
        return SilentConsole()
    return TerminalConsole(stream) if stream.isatty() else LineConsole(stream)
