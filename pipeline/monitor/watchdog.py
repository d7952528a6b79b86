"""Watchdog: detects files whose processing exceeds the time limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ..errors import SampleTimeoutError

T = TypeVar("T")

POLL_S = 1.0
TIMEOUT_FACTOR = 2
"""Multiple of the per-file limit after which a step is given up; files that DALI decodes in one run count as one."""


_Work = tuple[str, str, int, float]
"""Key, step, number of files, start time."""


class _Tracker:
    """Context manager that registers the current thread's work; lightweight, as it is entered for every sample."""

    __slots__ = ("_work", "_working")

    def __init__(self, working: dict[int, _Work], work: _Work) -> None:
        self._working = working
        self._work = work

    def __enter__(self) -> None:
        self._working[threading.get_ident()] = self._work

    def __exit__(self, *exc: object) -> None:
        self._working.pop(threading.get_ident(), None)


class Watchdog:
    """Tracks the file and step of each thread and stops the run on a timeout, as threads in C code cannot be killed.

    Args:
        max_seconds: limit for one file in one step; None disables the watchdog.
    """

    def __init__(self, max_seconds: float | None) -> None:
        self.max_seconds = max_seconds
        self.timed_out = False
        """True once a file was given up; its thread must not be joined."""
        self._working: dict[int, _Work] = {}

    def track(self, step: str, key: str, num_files: int = 1) -> _Tracker:
        """Track this thread's work on one file, or on several starting with ``key``, for the duration of the context."""
        return _Tracker(self._working, (key, step, num_files, time.monotonic()))

    def timeout_reason(self, seconds: float) -> str:
        """Return why a step of this duration exceeds the limit, or an empty string."""
        if self.max_seconds is None or seconds <= self.max_seconds:
            return ""
        return f"took {seconds:.1f} s, more than max_seconds_per_file: {self.max_seconds:g}"

    def wait_for(self, future: Future[T]) -> T:
        """Wait for a result, checking periodically for timeouts.

        Raises:
            SampleTimeoutError: a file takes more than twice the time it may.
        """
        while self.max_seconds is not None:
            try:
                return future.result(timeout=POLL_S)
            except TimeoutError:
                if future.done():  # raised by the task itself
                    return future.result()
                self._check_running()
        return future.result()

    def wait_for_all(self, futures: Sequence[Future[Any]]) -> None:
        """Wait until all futures are done, failed or not, checking periodically for timeouts.

        Raises:
            SampleTimeoutError: as ``wait_for``.
        """
        while wait(futures, None if self.max_seconds is None else POLL_S).not_done:
            self._check_running()

    def _check_running(self) -> None:
        assert self.max_seconds is not None
        for key, step, num_files, since in list(self._working.values()):
            limit = TIMEOUT_FACTOR * self.max_seconds
            if (seconds := time.monotonic() - since) > limit:
                self.timed_out = True
                what = repr(key) if num_files == 1 else f"{num_files} files, the first of them {key!r}"
                raise SampleTimeoutError(
                    f"{step} of {what}: expected to finish within {limit:g} s, still running after {seconds:.0f} s; "
                    "remove the file from the index or convert it, or raise errors.max_seconds_per_file"
                )
