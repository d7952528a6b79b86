"""Collects output lines, the result and permanent errors of ranks for the driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Reporter:
    """Ray actor on the driver's node; it survives restarts of the ranks."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._metrics: Mapping[str, Any] | None = None
        self._error: Exception | None = None

    def add_line(self, line: str) -> None:
        """Add a line for the driver's console."""
        self._lines.append(line)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Store the result."""
        self._metrics = dict(metrics)

    def fail(self, error: Exception) -> None:
        """Store a permanent error; the first one is kept."""
        self._error = self._error or error

    def failed(self) -> bool:
        """Return whether there is a permanent error."""
        return self._error is not None

    def take_lines(self) -> list[str]:
        """Return the lines since the last call."""
        lines, self._lines = self._lines, []
        return lines

    def outcome(self) -> tuple[Mapping[str, Any] | None, Exception | None]:
        """Return the result and the permanent error, each None if missing."""
        return self._metrics, self._error
