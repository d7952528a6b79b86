"""Decide when a checkpoint is due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from .optim import MAX_CHECKPOINT_OVERHEAD, CheckpointEvery


class CheckpointTimer:
    """Step and time counter since the last checkpoint."""

    def __init__(self, every: CheckpointEvery) -> None:
        self._every = every
        self._steps = 0
        self._written = monotonic()
        self._cost_s = 0.0

    def is_due(self) -> bool:
        """Count a step and return whether a checkpoint is due after it."""
        self._steps += 1
        every = self._every
        if every.steps is not None and self._steps >= every.steps:
            return True
        waited = monotonic() - self._written
        return every.seconds is not None and waited >= max(
            every.seconds, self._cost_s / MAX_CHECKPOINT_OVERHEAD
        )

    @contextmanager
    def measure_write(self) -> Iterator[None]:
        """Measure how long writing a checkpoint takes and reset the counters."""
        started = monotonic()
        yield
        self._written = monotonic()
        self._cost_s = self._written - started
        self._steps = 0
