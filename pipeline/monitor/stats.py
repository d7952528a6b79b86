"""Feed statistics: time per step, queue depths, memory use, and the bottleneck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.filesize import decimal as format_bytes

from ..machine import num_cpus

STEPS = {
    "read": ("read",),
    "process": ("lookup", "sample", "decode", "transform", "write"),
    "stage": ("load", "decode", "compute"),
    "consume": ("batch", "consumer"),
}
"""Steps of each stage, in processing order."""
CACHE_STEPS = {"lookup"}
"""Steps that exist only with a cache."""
WAIT_STEPS = ("input", "output")
STEP_LABELS = {
    "read": "reading",
    "lookup": "searching the cache",
    "sample": "sampling transform parameters",
    "decode": "decoding",
    "transform": "transforming",
    "write": "writing into the batch",
    "load": "reading",
    "compute": "the stage's function",
}
MIN_WAIT_SHARE = 0.1
"""Share of the time below which waiting is ignored."""


@dataclass(frozen=True, slots=True)
class ThreadStats:
    """Time and bytes per step of one thread; the seconds add up to ``wall_s``."""

    stage: str
    """``read``, ``process`` or ``consume``."""
    wall_s: float
    seconds: Mapping[str, float]
    """By step; ``input`` waits for the previous stage, ``output`` for the next stage or for memory."""
    bytes: Mapping[str, int]
    """Bytes produced, by step."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Depth of a queue between two stages."""

    name: str
    depth: int
    mean_depth: float


@dataclass(frozen=True, slots=True)
class FeedStats:
    """Statistics of a feed so far, in wall-clock seconds; threads of one stage are summed."""

    wall_s: float
    first_batch_s: float
    """Time to the first batch, including the start of threads and DALI."""
    cpu_s: float
    """CPU seconds of this process, consumer included."""
    num_threads: int
    num_samples: int
    num_batches: int
    samples_per_second: float
    samples_per_second_now: float
    """Over the last few seconds."""
    cache_hits: int
    replaced: int
    threads: tuple[ThreadStats, ...]
    queues: tuple[QueueStats, ...]
    memory_bytes: int
    """Memory budget for data in flight."""
    peak_bytes: int
    """Largest estimated amount of data in flight."""
    moved_bytes: int = 0
    """Bytes of batches received from other processes."""

    def seconds(self, stage: str, step: str) -> float:
        """Return the total seconds of a step over the threads of a stage."""
        return sum(one.seconds.get(step, 0.0) for one in self.threads if one.stage == stage)

    def share(self, stage: str, step: str) -> float:
        """Return the share, 0..1, of a stage's thread time that a step took."""
        lives = sum(one.wall_s for one in self.threads if one.stage == stage)
        return self.seconds(stage, step) / lives if lives else 0.0

    def bytes(self, step: str) -> int:
        """Return the total bytes that a step produced."""
        return sum(one.bytes.get(step, 0) for one in self.threads)

    def bottleneck(self) -> str:
        """Describe the bottleneck in words.

        The consumer is the bottleneck if it never waits; otherwise processing is, or reading if processing waits for it.
        """
        if self.num_batches == 0:
            return "unknown: no batch yet"
        waited = max(0.0, self.seconds("consume", "input") - self.first_batch_s)
        waited /= max(self.wall_s - self.first_batch_s, 1e-9)
        workers = "stage" if any(one.stage == "stage" for one in self.threads) else "process"
        blocked = self.share(workers, "output")
        if min(blocked, waited) > MIN_WAIT_SHARE:
            text = f"handoff: workers waited {blocked:.0%} of the time, and the consumer {waited:.0%}"
            return text.replace("%", " %")
        if blocked > waited and blocked > MIN_WAIT_SHARE:
            return f"the consumer: the pipeline waited for it {blocked:.0%} of the time".replace("%", " %")
        working = {step: self.share(workers, step) for step in STEPS[workers]}
        starved = self.share(workers, "input")
        if starved > sum(working.values()):
            return f"reading: the decoding threads waited for files {starved:.0%} of the time".replace(
                "%", " %"
            )
        slowest = max(working, key=working.__getitem__)
        return f"{STEP_LABELS[slowest]}: {working[slowest]:.0%} of {_thread_count(self.num_threads)}".replace(
            "%", " %"
        )

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the table of steps: header and cells."""
        header = ["step", "threads", "working", "waits for input", "waits for output", "bytes"]
        cells = []
        for stage, steps in STEPS.items():
            num = sum(one.stage == stage for one in self.threads)
            if not num:
                continue
            waits = [_percent(self.share(stage, wait)) for wait in WAIT_STEPS]
            shown = [step for step in steps if step not in CACHE_STEPS or self.seconds(stage, step)]
            for number, step in enumerate(shown):
                first = number == 0
                text = self.bytes(step)
                cells.append(
                    [
                        step,
                        str(num) if first else "",
                        _percent(self.share(stage, step)),
                        *(waits if first else ["", ""]),
                        format_bytes(text) if text else "",
                    ]
                )
        return header, cells

    def lines(self) -> list[str]:
        """Format the table, the summary and the bottleneck as lines of text."""
        header, cells = self.rows()
        widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
        table = [
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in [header, *cells]
        ]
        return [*table, self.summary(), f"bottleneck: {self.bottleneck()}"]

    def summary(self) -> str:
        """Return a one-line summary."""
        cores = self.cpu_s / self.wall_s if self.wall_s else 0.0
        text = (
            f"{self.num_samples:,} images in {self.wall_s:.1f} s, {self.samples_per_second:,.0f} a second, "
            f"{self.replaced:,} replaced; {cores:.1f} of {num_cpus()} cores busy; "
            f"at most {format_bytes(self.peak_bytes)} of {format_bytes(self.memory_bytes)} in flight"
        )
        text += f"; {self.cache_hits:,} from the cache" if self.cache_hits else ""
        return f"{text}; {format_bytes(self.moved_bytes)} moved" if self.moved_bytes else text


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _thread_count(num_threads: int) -> str:
    """Describe a number of threads, as cores if there is one thread per core."""
    what = "core" if num_threads == num_cpus() else "thread"
    if num_threads == 1:
        return f"the one {what}"
    return f"both {what}s" if num_threads == 2 else f"all {num_threads} {what}s"
