"""Silence Python warnings in one thread while a library is called that warns of what is reported in other ways."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_lock = threading.Lock()
_inside: list[int] = []
"""One identifier of a thread for every context that is open; only how many there are counts."""


class _ThisThread(threading.local):
    """How deep this thread is inside; also the pattern of the filter, which matches only there."""

    depth = 0

    def match(self, _message: str) -> bool:
        """Match the message of any warning that is issued inside."""
        return self.depth > 0


_this_thread = _ThisThread()
_FILTER = ("ignore", cast("re.Pattern[str]", _this_thread), Warning, None, 0)


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Ignore the warnings of this thread inside the context; those of other threads stay as they are.

    ``warnings.catch_warnings`` is not safe here: it swaps a list of the whole process, and threads that overlap can
    leave all warnings off. This one adds a filter that matches only in threads that are inside, and takes it away
    when the last thread leaves.
    """
    with _lock:
        _inside.append(threading.get_ident())
        filters = _filters()
        if not filters or filters[0] is not _FILTER:  # another filter was put before it meanwhile
            _remove(filters)
            filters.insert(0, _FILTER)
    _this_thread.depth += 1
    try:
        yield
    finally:
        _this_thread.depth -= 1
        with _lock:
            _inside.pop()
            if not _inside:
                _remove(_filters())


def _filters() -> list[Any]:
    return cast("list[Any]", warnings.filters)


def _remove(filters: list[Any]) -> None:
    filters[:] = [one for one in filters if one is not _FILTER]
