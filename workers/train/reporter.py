"""Where ranks report and the driver asks: lines to show, the result, and why a run cannot go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Reporter:
    """Lives as a Ray actor on the driver's node; a run that is restarted finds it again."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._metrics: Mapping[str, Any] | None = None
        self._error: Exception | None = None

    def add_line(self, line: str) -> None:
        """Take a line for the driver's console."""
        self._lines.append(line)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Take the result."""
        self._metrics = dict(metrics)

    def fail(self, error: Exception) -> None:
        """Take the reason why trying again is of no use; the first one counts."""
        self._error = self._error or error

    def failed(self) -> bool:
        """Say whether there is such a reason."""
        return self._error is not None

    def take_lines(self) -> list[str]:
        """Hand out the lines that nobody has had."""
        lines, self._lines = self._lines, []
        return lines

    def outcome(self) -> tuple[Mapping[str, Any] | None, Exception | None]:
        """Return the result, or why there is none."""
        return self._metrics, self._error
