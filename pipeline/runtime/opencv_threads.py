"""OpenCV's own threads: one while a feed makes batches, which has threads of its own, and afterwards as many as before."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import cv2

_lock = threading.Lock()
_num_holders = 0
_before = 1
"""How many threads OpenCV had before the first of those that hold it came."""


class SingleThreadedOpenCV:
    """Holds OpenCV, whose number of threads is of the whole process, at one thread; a context manager.

    Several may hold it at a time and leave in any order. The last one restores what there was before the first, unless
    somebody else has set another number meanwhile.
    """

    def __init__(self) -> None:
        global _before, _num_holders  # noqa: PLW0603 - as is what they keep
        with _lock:
            if not _num_holders:
                _before = cv2.getNumThreads()
            _num_holders += 1
            self._holds = True
            cv2.setNumThreads(1)

    def release(self) -> None:
        """Let go; once is enough."""
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
