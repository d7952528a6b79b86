"""Step timers: wall-clock time per step for each thread of a feed.

A timer switches steps once per chunk, not once per sample. Each interval between two switches belongs to one step, so
that the steps of a thread add up to its lifetime. Times are wall-clock: a thread waiting for a busy core is counted as
working on its step.

DALI's own threads have no timer: the calling thread waits inside its step while they work, so their time is counted
once, however many they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field

from .stats import FeedStats, QueueStats, ThreadStats

RATE_WINDOW_S = 5.0
"""Window of ``samples_per_second_now``, in seconds."""


class StepTimer:
    """Time per step of one thread. Only that thread may switch steps; any thread may read."""

    def __init__(self, stage: str = "process") -> None:
        self.stage = stage
        """``read``, ``process``, ``stage`` (of a batch job) or ``consume``."""
        self._lock = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._bytes: dict[str, int] = {}
        self._started = self._since = time.perf_counter()
        self._step = "output"
        self._stopped = False

    def enter(self, step: str, num_bytes: int = 0) -> str:
        """Start a step and end the previous one.

        Args:
            step: ``read``, ``load``, ``compute``, ``lookup``, ``sample``, ``decode``, ``transform``, ``write``, ``consumer``; or waiting for
                ``input`` or ``output``.
            num_bytes: bytes produced by the step that ends.

        Returns:
            The step that ended, so that the caller can return to it.
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
        """Stop timing."""
        self.enter(self._step)
        self._stopped = True

    def read(self) -> ThreadStats:
        """Return the totals, including the current step."""
        with self._lock:
            seconds = dict(self._seconds)
            now = self._since if self._stopped else time.perf_counter()
            seconds[self._step] = seconds.get(self._step, 0.0) + now - self._since
            return ThreadStats(self.stage, now - self._started, seconds, dict(self._bytes))


@dataclass
class QueueGauge:
    """Current and mean depth of the queue between two stages. Thread-safe."""

    name: str
    _depth: int = 0
    _area: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _started: float = field(default_factory=time.perf_counter)
    _since: float = field(default_factory=time.perf_counter)

    def change(self, by: int) -> None:
        """Add to the depth."""
        with self._lock:
            self._advance()
            self._depth += by

    def read(self) -> QueueStats:
        """Return the current and the mean depth."""
        with self._lock:
            self._advance()
            return QueueStats(self.name, self._depth, self._area / max(self._since - self._started, 1e-9))

    def _advance(self) -> None:
        now = time.perf_counter()
        self._area += self._depth * (now - self._since)
        self._since = now


class FeedMonitor:
    """All timers and counters of one feed. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._timers: list[StepTimer] = []
        self._recent_batches: deque[tuple[float, int]] = deque()
        self._started: float | None = None
        self._first: float | None = None
        self._stopped: float | None = None
        self._cpu_started = self._cpu_stopped = 0.0
        self.num_samples = 0
        self.num_batches = 0
        self.cache_hits = 0
        self.chunks = QueueGauge("read chunks")
        self.batches = QueueGauge("open batches")

    def start(self) -> None:
        """Start counting when iteration of the feed begins."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Stop counting; later reads return the same values."""
        if self._stopped is None and self._started is not None:
            self._stopped, self._cpu_stopped = time.perf_counter(), time.process_time()
            for timer in self._timers:
                timer.stop()

    def timer(self, stage: str) -> StepTimer:
        """Return this thread's timer for a stage; started on first use."""
        if getattr(self._local, stage, None) is None:
            timer = StepTimer(stage)
            setattr(self._local, stage, timer)
            with self._lock:
                self._timers.append(timer)
        found: StepTimer = getattr(self._local, stage)
        return found

    def count_cache_hits(self, num_samples: int) -> None:
        """Count samples read from a cache."""
        with self._lock:
            self.cache_hits += num_samples

    def count_batch(self, num_samples: int) -> None:
        """Count a batch yielded to the consumer."""
        now = time.perf_counter()
        with self._lock:
            self._first = now if self._first is None else self._first
            self.num_samples += num_samples
            self.num_batches += 1
            self._recent_batches.append((now, num_samples))
            while len(self._recent_batches) > 2 and self._recent_batches[1][0] < now - RATE_WINDOW_S:
                self._recent_batches.popleft()

    def read(self, *, num_threads: int, replaced: int, memory_bytes: int, peak_bytes: int) -> FeedStats:
        """Return the statistics so far."""
        now = time.perf_counter() if self._stopped is None else self._stopped
        started = now if self._started is None else self._started
        cpu = time.process_time() if self._stopped is None else self._cpu_stopped
        with self._lock:
            timers = list(self._timers)
            recent = list(self._recent_batches)
            first = now if self._first is None else self._first
        return FeedStats(
            wall_s=now - started,
            first_batch_s=first - started,
            cpu_s=0.0 if self._started is None else cpu - self._cpu_started,
            num_threads=num_threads,
            num_samples=self.num_samples,
            num_batches=self.num_batches,
            samples_per_second=self.num_samples / (now - started) if now > started else 0.0,
            samples_per_second_now=_recent_rate(recent, now),
            cache_hits=self.cache_hits,
            replaced=replaced,
            threads=tuple(timer.read() for timer in timers),
            queues=(self.chunks.read(), self.batches.read()),
            memory_bytes=memory_bytes,
            peak_bytes=peak_bytes,
        )


def _recent_rate(yielded: list[tuple[float, int]], now: float) -> float:
    """Return the samples per second since the first of some batches, whose own samples are excluded."""
    if len(yielded) < 2:
        return 0.0
    start = yielded[0][0]
    return sum(count for _, count in yielded[1:]) / max(now - start, 1e-9)
