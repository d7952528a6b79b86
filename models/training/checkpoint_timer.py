"""Decide when a checkpoint is due."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from .distributed.context import DistributedContext
from .optim import MAX_CHECKPOINT_OVERHEAD, CheckpointEvery

STEPS_PER_ANSWER = 50
"""Steps on GPUs after which ranks ask the main one whether the time has come, for whose answer they wait."""


class CheckpointTimer:
    """Step and time counter since the last checkpoint, with the same answers on every rank.

    Args:
        every: the interval; of the time, the main rank's counts.
        dist: the ranks.
    """

    def __init__(self, every: CheckpointEvery, dist: DistributedContext | None = None) -> None:
        self._every = every
        self._dist = dist or DistributedContext()
        self._steps = 0
        self._written = monotonic()
        self._cost_s = 0.0
        self._is_late = False
        """Whether the time has come."""

    def is_due(self) -> bool:
        """Count a step and return whether a checkpoint is due after it; a collective operation of all ranks."""
        self._steps += 1
        every, dist = self._every, self._dist
        if every.seconds is not None and not self._is_late:
            waited = monotonic() - self._written
            is_late = waited >= max(every.seconds, self._cost_s / MAX_CHECKPOINT_OVERHEAD)
            if dist.num_ranks == 1:
                self._is_late = is_late
            elif dist.device.type == "cpu" or self._steps % STEPS_PER_ANSWER == 0:
                self._is_late = dist.agree(is_late)
        return self._is_late or (every.steps is not None and self._steps >= every.steps)

    @contextmanager
    def measure_write(self) -> Iterator[None]:
        """Measure how long writing a checkpoint takes and reset the counters."""
        started = monotonic()
        yield
        self._written = monotonic()
        self._cost_s = self._written - started
        self._steps, self._is_late = 0, False
