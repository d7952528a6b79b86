"""Metrics log of a training run: ``metrics.jsonl``, one line per epoch and split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.atomic_io import write_bytes
from ...pipeline.errors import OutputError
from .tensorboard import append, write_events

METRICS_NAME = "metrics.jsonl"
RESULT_NAME = "result.json"


@dataclass(frozen=True)
class MetricsLogger:
    """Append-only JSON Lines file of metrics, and an event file for TensorBoard if wanted."""

    path: Path
    events: Path | None = None
    """The event file."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Append a record as one line and flush it."""
        line = json.dumps(record, allow_nan=False) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
        except OSError as error:
            raise OutputError(
                f"expected to write {str(self.path)!r}, got {error.strerror or error}; free space, or choose another --out"
            ) from error
        if self.events is not None:
            append(self.events, record)

    def truncate_from(self, epoch: int) -> int:
        """Remove the lines of an epoch and of later ones, left by an interrupted run.

        Returns:
            Number of earlier epochs without a complete line, because the file was damaged or removed.
        """
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        found = [
            (line, number) for line in lines if (number := parse_epoch(line)) is not None and number < epoch
        ]
        if lines:
            write_bytes(self.path, b"".join(line + b"\n" for line, _ in found))
        if self.events is not None:
            write_events(self.path, self.events)
        return epoch - len({number for _, number in found} & set(range(epoch)))


def parse_epoch(line: bytes) -> int | None:
    """Return the epoch of a line; None for an incomplete line."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return None
