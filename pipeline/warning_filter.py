"""Suppress Python warnings in a single thread, for library calls whose problems are reported in other ways."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

_lock = threading.Lock()
_open_contexts: list[int] = []
"""Thread identifiers, one for each open context; only the length is used."""


class _ThreadState(threading.local):
    """Nesting depth of this thread; doubles as the message pattern of the filter, which matches inside a context only."""

    depth = 0

    def match(self, _message: str) -> bool:
        """Match any message while a context is open in this thread."""
        return self.depth > 0


_thread_state = _ThreadState()
_FILTER = ("ignore", cast("re.Pattern[str]", _thread_state), Warning, None, 0)


@contextmanager
def ignored_warnings() -> Iterator[None]:
    """Ignore warnings of this thread inside the context; other threads are not affected.

    ``warnings.catch_warnings`` is not thread-safe: it replaces a process-wide list, and overlapping threads can leave
    all warnings disabled. This context adds a filter that only matches in threads with an open context, and removes it
    when the last context closes.
    """
    with _lock:
        _open_contexts.append(threading.get_ident())
        filters = _filters()
        if not filters or filters[0] is not _FILTER:  # another filter has been inserted before it
            _remove(filters)
            filters.insert(0, _FILTER)
    _thread_state.depth += 1
    try:
        yield
    finally:
        _thread_state.depth -= 1
        with _lock:
            _open_contexts.pop()
            if not _open_contexts:
                _remove(_filters())


def _filters() -> list[Any]:
    return cast("list[Any]", warnings.filters)


def _remove(filters: list[Any]) -> None:
    filters[:] = [one for one in filters if one is not _FILTER]
