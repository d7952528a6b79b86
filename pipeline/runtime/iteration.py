"""Guard of a feed's iteration: one loop at a time, in the process that opened the feed, until it is exhausted or closed."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RequestError

_OPEN_AGAIN = "open the feed again with engine.feed(plan, view, position)"


class IterationGuard:
    """Iteration state of a feed. Thread-safe.

    The position belongs to the feed: two concurrent loops would each see some of the batches, and a copy of the feed in
    another process would repeat them.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._running = False
        self._finished = False
        self._closed = False

    def check(self) -> None:
        """Check that a loop may start.

        Raises:
            RequestError: the feed is closed or read to its end, another loop over it is open, or this process is not
                the one that opened it.
        """
        self._check_process()
        if self._closed:
            raise RequestError(f"feed: expected an open feed, got one that was closed; {_OPEN_AGAIN}")
        if self._finished:
            raise RequestError(
                "feed: expected remaining batches, got a feed that was read to its end; for several epochs open it with "
                "View(num_epochs=...), open it again, or set another position with load_state_dict()"
            )
        self._check_idle("a second loop")

    def check_movable(self) -> None:
        """Check that the position may be set.

        Raises:
            RequestError: the feed is closed, a loop over it is open, or this process is not the one that opened it.
        """
        self._check_process()
        if self._closed:
            raise RequestError(f"feed: expected an open feed, got one that was closed; {_OPEN_AGAIN}")
        self._check_idle("another position")

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Mark the feed as being iterated; it is exhausted if the loop ends without an error."""
        with self._lock:
            self.check()
            self._running = True
        try:
            yield
            self._finished = True
        finally:
            self._running = False

    def restart(self) -> None:
        """Allow a new loop after the position was set."""
        self._finished = False

    def close(self) -> None:
        """Refuse new loops; one that is open may end."""
        self._closed = True

    def _check_idle(self, attempt: str) -> None:
        if self._running:
            raise RequestError(
                f"feed: expected one loop at a time, got {attempt} while one is open; leave that loop or call close() on "
                "its iterator first, or open a second feed"
            )

    def _check_process(self) -> None:
        if _is_loader_worker():
            raise RequestError(
                "feed: expected DataLoader(feed, batch_size=None, num_workers=0), got a worker process of a DataLoader; "
                "every worker would repeat all batches and keep position and counts to itself: a feed has its own threads, "
                "see LocalEngine(num_threads=...)"
            )
        if os.getpid() != self._pid:
            raise RequestError(
                f"feed: expected the process that opened it ({self._pid}), got process {os.getpid()}, a fork of it; open "
                "the feed where it is read"
            )


def _is_loader_worker() -> bool:
    loaders = sys.modules.get("torch.utils.data")  # not imported: not a DataLoader worker
    return loaders is not None and loaders.get_worker_info() is not None
