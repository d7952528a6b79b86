"""Where the time of a feed's threads goes: each thread has a clock that stands on one step at a time.

A clock is moved at the borders of steps, once for a chunk and not once for a sample. What lies between two moves
belongs to one step, so that the steps of a thread add up to its life. Seconds are those of the wall: a thread that
waits for a core because others have them is counted as working on its step.

DALI brings threads of its own. They have no clock: while they work, the thread that asked them waits inside the step,
and its time is counted, once, however many they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from .stats import FeedStats, QueueStats, ThreadStats

NOW_S = 5.0
"""How far back "now" reaches, in seconds."""


class StepTimer:
    """The clock of one thread; only that thread moves it, any thread may read it."""

    def __init__(self, stage: str = "make") -> None:
        self.stage = stage
        """``read``, ``make`` or ``consume``."""
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, int] = {}
        self._started = self._since = time.perf_counter()
        self._step = "room"
        self._stopped = False

    def enter(self, step: str, num_bytes: int = 0) -> str:
        """Begin a step, which ends the one before.

        Args:
            step: ``read``, ``find``, ``draw``, ``decode``, ``transform``, ``write``, ``consumer``; ``input`` and ``room`` are
                waiting for them.
            num_bytes: what the step that ends has brought forth.

        Returns:
            The step that ended, for who wants to go back to it.
        """
        with self._lock:
            ended = self._step
            if self._stopped:
                return ended
            now = time.perf_counter()
            self._seconds[ended] = self._seconds.get(ended, 0.0) + now - self._since
            if num_bytes:
                self._bytes[ended] = self._bytes.get(ended, 0) + num_bytes
            self._step, self._since = step, now
            return ended

    def stop(self) -> None:
        """End the life of the thread."""
        self.enter(self._step)
        self._stopped = True

    def read(self) -> ThreadStats:
        """Sum up, the step under way included."""
        with self._lock:
            seconds = dict(self._seconds)
            now = self._since if self._stopped else time.perf_counter()
            seconds[self._step] = seconds.get(self._step, 0.0) + now - self._since
            return ThreadStats(self.stage, now - self._started, seconds, dict(self._bytes))


@dataclass
class Queue:
    """How much lies ready between two stages, and how much did on average. Any thread may change it."""

    name: str
    _depth: int = 0
    _area: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.perf_counter)
    _since: float = field(default_factory=time.perf_counter)

    def change(self, by: int) -> None:
        """Note that something came or went."""
        with self._lock:
            self._advance()
            self._depth += by

    def read(self) -> QueueStats:
        """Say how deep it is and was on average."""
        with self._lock:
            self._advance()
            return QueueStats(self.name, self._depth, self._area / max(self._since - self._started, 1e-9))

    def _advance(self) -> None:
        now = time.perf_counter()
        self._area += self._depth * (now - self._since)
        self._since = now


class FeedMonitor:
    """All clocks and counters of one feed. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own = threading.local()
        self._timers: list[StepTimer] = []
        self._yielded: deque[tuple[float, int]] = deque()
        self._started: float | None = None
        self._first: float | None = None
        self._stopped: float | None = None
        self._cpu_started = self._cpu_stopped = 0.0
        self.num_samples = 0
        self.num_batches = 0
        self.cache_hits = 0
        self.chunks = Queue("chunks that are read")
        self.batches = Queue("batches in the making or ready")

    def start(self) -> None:
        """Begin to count: the feed is being iterated."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """End the feed's life; later readings stay the same."""
        if self._stopped is None and self._started is not None:
            self._stopped, self._cpu_stopped = time.perf_counter(), time.process_time()
            for timer in self._timers:
                timer.stop()

    def timer(self, stage: str) -> StepTimer:
        """Return this thread's clock for a stage; it starts when it is first asked for."""
        if getattr(self._own, stage, None) is None:
            timer = StepTimer(stage)
            setattr(self._own, stage, timer)
            with self._lock:
                self._timers.append(timer)
        found: StepTimer = getattr(self._own, stage)
        return found

    def count_cache_hits(self, num_samples: int) -> None:
        """Count samples whose pixels came out of a cache."""
        with self._lock:
            self.cache_hits += num_samples

    def count_batch(self, num_samples: int) -> None:
        """Count a batch that goes to the consumer."""
        now = time.perf_counter()
        with self._lock:
            self._first = now if self._first is None else self._first
            self.num_samples += num_samples
            self.num_batches += 1
            self._yielded.append((now, num_samples))
            while len(self._yielded) > 2 and self._yielded[1][0] < now - NOW_S:
                self._yielded.popleft()

    def read(self, *, num_threads: int, replaced: int, memory_bytes: int, peak_bytes: int) -> FeedStats:
        """Sum up."""
        now = time.perf_counter() if self._stopped is None else self._stopped
        started = now if self._started is None else self._started
        cpu = time.process_time() if self._stopped is None else self._cpu_stopped
        with self._lock:
            timers = list(self._timers)
            recent = list(self._yielded)
            first = now if self._first is None else self._first
        return FeedStats(
            wall_s=now - started,
            first_batch_s=first - started,
            cpu_s=0.0 if self._started is None else cpu - self._cpu_started,
            num_threads=num_threads,
            num_samples=self.num_samples,
            num_batches=self.num_batches,
            samples_per_second=self.num_samples / (now - started) if now > started else 0.0,
            samples_per_second_now=_pace(recent, now),
            cache_hits=self.cache_hits,
            replaced=replaced,
            threads=tuple(timer.read() for timer in timers),
            queues=(self.chunks.read(), self.batches.read()),
            memory_bytes=memory_bytes,
            peak_bytes=peak_bytes,
        )


def _pace(yielded: list[tuple[float, int]], now: float) -> float:
    """Samples a second between the first of some batches and now; its own samples came before it."""
    if len(yielded) < 2:
        return 0.0
    start = yielded[0][0]
    return sum(count for _, count in yielded[1:]) / max(now - start, 1e-9)
