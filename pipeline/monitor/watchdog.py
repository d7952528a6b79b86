"""Who works on which file since when: finds the file that never comes to an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ..errors import StuckError

T = TypeVar("T")

POLL_S = 1.0
TIMEOUT_FACTOR = 2
"""A step that takes so many times the limit of one file is not waited for any longer; files that DALI decodes in one
run count as one."""


_Work = tuple[str, str, int, float]
"""Key, step, number of files, and since when."""


class _Tracker:
    """A note that lasts as long as its context: entered for every sample, and so as light as it gets."""

    __slots__ = ("_work", "_working")

    def __init__(self, working: dict[int, _Work], work: _Work) -> None:
        self._working = working
        self._work = work

    def __enter__(self) -> None:
        self._working[threading.get_ident()] = self._work

    def __exit__(self, *exc: object) -> None:
        self._working.pop(threading.get_ident(), None)


class Watchdog:
    """Notes what every thread is at. A thread in C code cannot be ended, so that all it can do is stop the run.

    Args:
        max_seconds: of one file in one step; None watches nothing.
    """

    def __init__(self, max_seconds: float | None) -> None:
        self.max_seconds = max_seconds
        self.timed_out = False
        """Set once a file was given up; its thread must not be waited for."""
        self._working: dict[int, _Work] = {}

    def track(self, step: str, key: str, num_files: int = 1) -> _Tracker:
        """Note, while the context lasts, that this thread works on a file, or on several of which ``key`` is the first."""
        return _Tracker(self._working, (key, step, num_files, time.monotonic()))

    def timeout_reason(self, seconds: float) -> str:
        """Say that a step took too long, or nothing."""
        if self.max_seconds is None or seconds <= self.max_seconds:
            return ""
        return f"took {seconds:.1f} s, more than max_seconds_per_file: {self.max_seconds:g}"

    def wait_for(self, future: Future[T]) -> T:
        """Wait for a result, and look now and then whether somebody is stuck.

        Raises:
            StuckError: a file takes more than twice the time it may.
        """
        while self.max_seconds is not None:
            try:
                return future.result(timeout=POLL_S)
            except TimeoutError:
                if future.done():  # its own, not ours
                    return future.result()
                self._check_running()
        return future.result()

    def wait_for_all(self, futures: Sequence[Future[Any]]) -> None:
        """Wait until all have ended, well or not, and look now and then whether somebody is stuck.

        Raises:
            StuckError: as ``wait_for``.
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
                raise StuckError(
                    f"{step} of {what}: expected an end within {limit:g} s, got none after {seconds:.0f} s; "
                    "a thread cannot be ended from outside: take the file out of the index or convert it, "
                    "or raise errors.max_seconds_per_file"
                )
