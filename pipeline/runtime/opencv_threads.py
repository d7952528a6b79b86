"""Limits OpenCV to one thread while feeds run, which have their own threads, and restores the previous number."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import cv2

_lock = threading.Lock()
_num_holders = 0
_before = 1
"""OpenCV's number of threads before the first holder limited it."""


class SingleThreadedOpenCV:
    """Limits OpenCV to one thread, process-wide; a context manager.

    Several may be active and end in any order. The last one restores the number from before the first, unless other code
    has changed it in the meantime.
    """

    def __init__(self) -> None:
        global _before, _num_holders  # noqa: PLW0603 - OpenCV has one setting per process
        with _lock:
            if not _num_holders:
                _before = cv2.getNumThreads()
            _num_holders += 1
            self._holds = True
            cv2.setNumThreads(1)

    def release(self) -> None:
        """Remove the limit; idempotent."""
        global _num_holders  # noqa: PLW0603
        with _lock:
            if not self._holds:
                return
            self._holds = False
            _num_holders -= 1
            if not _num_holders and cv2.getNumThreads() == 1:
                cv2.setNumThreads(_before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
