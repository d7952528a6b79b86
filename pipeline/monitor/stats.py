"""What a feed can say of itself: where its time went, what it holds, and in words what keeps it from being faster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..machine import num_cpus

STEPS = {
    "read": ("read",),
    "make": ("find", "draw", "decode", "transform", "write"),
    "consume": ("batch", "consumer"),
}
"""The steps of each stage, in the order in which a sample goes through them."""
CACHE_STEPS = {"find"}
"""Steps that are there only with a cache."""
WAIT_STEPS = ("input", "room")
STEP_LABELS = {
    "read": "reading",
    "find": "searching the cache",
    "draw": "drawing",
    "decode": "decoding",
    "transform": "transforming",
    "write": "writing into the batch",
}
MIN_WAIT_SHARE = 0.1
"""A share of the time below which waiting says nothing."""


@dataclass(frozen=True, slots=True)
class ThreadStats:
    """One thread's life: its seconds add up to ``wall_s``."""

    stage: str
    """``read``, ``make`` or ``consume``."""
    wall_s: float
    seconds: Mapping[str, float]
    """By step; ``input`` and ``room`` are waiting: for the stage before, and for the one behind or for memory."""
    bytes: Mapping[str, int]
    """What steps brought forth."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What lies between two stages."""

    name: str
    depth: int
    mean_depth: float


@dataclass(frozen=True, slots=True)
class FeedStats:
    """A feed's life so far. Seconds are of the wall; those of threads of one stage are added."""

    wall_s: float
    first_batch_s: float
    """From the start to the first batch; threads and DALI start here."""
    cpu_s: float
    """Seconds of cores that this process took meanwhile, the consumer's included."""
    num_threads: int
    num_samples: int
    num_batches: int
    samples_per_second: float
    samples_per_second_now: float
    """Over the last seconds."""
    cache_hits: int
    replaced: int
    threads: tuple[ThreadStats, ...]
    queues: tuple[QueueStats, ...]
    memory_bytes: int
    """What may be in flight."""
    peak_bytes: int
    """The most that was in flight, as estimated."""
    moved_bytes: int = 0
    """Of batches that came from other processes."""

    def seconds(self, stage: str, step: str) -> float:
        """Add up a step over the threads of a stage."""
        return sum(one.seconds.get(step, 0.0) for one in self.threads if one.stage == stage)

    def share(self, stage: str, step: str) -> float:
        """Return a step's part of the lives of a stage's threads, 0..1."""
        lives = sum(one.wall_s for one in self.threads if one.stage == stage)
        return self.seconds(stage, step) / lives if lives else 0.0

    def bytes(self, step: str) -> int:
        """Add up what a step brought forth."""
        return sum(one.bytes.get(step, 0) for one in self.threads)

    def bottleneck(self) -> str:
        """Say in words what would have to be faster.

        A consumer that never waits is the bottleneck itself. Where it waits, making is, or reading if making waited
        for that.
        """
        if self.num_batches == 0:
            return "nothing yet: no batch has come"
        waited = max(0.0, self.seconds("consume", "input") - self.first_batch_s)
        waited /= max(self.wall_s - self.first_batch_s, 1e-9)
        room = self.share("make", "room")
        if min(room, waited) > MIN_WAIT_SHARE:
            text = f"handing over: workers waited {room:.0%} of the time, and the consumer {waited:.0%}"
            return text.replace("%", " %")
        if room > waited and room > MIN_WAIT_SHARE:
            return f"the consumer: the pipeline waited for it {room:.0%} of the time".replace("%", " %")
        making = {step: self.share("make", step) for step in STEPS["make"]}
        missing = self.share("make", "input")
        if missing > sum(making.values()):
            return f"reading: the threads that decode waited for files {missing:.0%} of the time".replace(
                "%", " %"
            )
        most = max(making, key=making.__getitem__)
        return f"{STEP_LABELS[most]}: {making[most]:.0%} of {_thread_count(self.num_threads)}".replace(
            "%", " %"
        )

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Lay the steps out as a table: header and cells."""
        header = ["step", "threads", "working", "waits for input", "waits for room", "bytes"]
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
                        megabytes(text) if text else "",
                    ]
                )
        return header, cells

    def lines(self) -> list[str]:
        """Write table and verdict as lines of text."""
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
        """Sum up in one line."""
        cores = self.cpu_s / self.wall_s if self.wall_s else 0.0
        text = (
            f"{self.num_samples:,} images in {self.wall_s:.1f} s, {self.samples_per_second:,.0f} a second, "
            f"{self.replaced:,} replaced; {cores:.1f} of {num_cpus()} cores busy; "
            f"at most {megabytes(self.peak_bytes)} of {megabytes(self.memory_bytes)} in flight"
        )
        text += f"; {self.cache_hits:,} from the cache" if self.cache_hits else ""
        return f"{text}; {megabytes(self.moved_bytes)} moved" if self.moved_bytes else text


def megabytes(num_bytes: int) -> str:
    """Write bytes with a unit that can be read."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes} bytes"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _thread_count(num_threads: int) -> str:
    """Name so many threads: they are the cores where there are as many."""
    what = "core" if num_threads == num_cpus() else "thread"
    if num_threads == 1:
        return f"the one {what}"
    return f"both {what}s" if num_threads == 2 else f"all {num_threads} {what}s"
