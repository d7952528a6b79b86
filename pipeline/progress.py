"""What long work shows: a progress bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .batch import Batch
    from .jobs import Feed

PLAIN_INTERVAL_S = 10.0
"""Seconds between two plain progress lines."""


class SilentConsole:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Drop the line."""

    def track(self, batches: Feed, label: str) -> Iterator[Batch]:  # noqa: ARG002
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
        print(line, file=self._stream, flush=True)

    def track(self, batches: Feed, label: str) -> Iterator[Batch]:
        """Pass batches on and say now and then how far it is."""
        started = spoke = time.monotonic()
        images = 0
        for number, batch in enumerate(batches, 1):
            yield batch
            images += batch.num_images
            if (now := time.monotonic()) - spoke >= PLAIN_INTERVAL_S:
                spoke = now
                self.say(_progress_line(label, number, batches, images, now - started))

    def count(self, label: str) -> Callable[[int, int], None]:
        """Return a callback ``(done, total)`` that prints at the end."""

        def show(done: int, total: int) -> None:
            if done == total:
                self.say(f"{label}: {done:,} of {total:,}")

        return show


class TerminalConsole(LineConsole):
    """A progress bar that is redrawn in place."""

    def track(self, batches: Feed, label: str) -> Iterator[Batch]:
        """Pass batches on under a bar with images, rate, time left and replaced images."""
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn(
                "{task.fields[images]:,} images  {task.fields[rate]:.0f}/s  {task.fields[replaced]} replaced"
            ),
            TimeRemainingColumn(),
        )
        started = time.monotonic()
        images = 0
        with Progress(*columns, console=RichConsole(file=self._stream), transient=True) as progress:
            task = progress.add_task(label, total=batches.num_batches, images=0, rate=0.0, replaced=0)
            for batch in batches:
                yield batch
                images += batch.num_images
                rate = images / max(time.monotonic() - started, 1e-9)
                progress.update(
                    task, advance=1, images=images, rate=rate, replaced=batches.counts["replaced"]
                )


def _progress_line(label: str, number: int, batches: Feed, images: int, seconds: float) -> str:
    left = (batches.num_batches - number) * seconds / number
    replaced = batches.counts["replaced"]
    return (
        f"{label}: {images:,} images, {images / seconds:.0f} a second, {left:.0f} s left, {replaced} replaced"
    )


def console_for(stream: TextIO | None = None, *, quiet: bool) -> SilentConsole:
    """Choose the console that suits where the output goes."""
    stream = stream or sys.stderr
    if quiet:
        return SilentConsole()
    return TerminalConsole(stream) if stream.isatty() else LineConsole(stream)
