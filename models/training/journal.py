"""Where numbers go: ``metrics.jsonl``, a line per epoch and split, and ``result.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...pipeline.atomic_io import write_text
from ...pipeline.errors import OutputError

METRICS_NAME = "metrics.jsonl"
RESULT_NAME = "result.json"


@dataclass(frozen=True)
class Journal:
    """The metrics of a run, on disk as they come."""

    path: Path

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one whole line and flush it."""
        line = json.dumps(record, allow_nan=False) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
        except OSError as error:
            raise OutputError(
                f"expected to write {str(self.path)!r}, got {error.strerror or error}; free space, or choose another --out"
            ) from error

    def keep_before(self, epoch: int) -> None:
        """Drop the lines of an epoch and those after it, which a run that was stopped left unfinished."""
        if not self.path.exists():
            return
        kept = [
            line
            for line in self.path.read_text(encoding="utf-8").splitlines()
            if finished_before(line, epoch)
        ]
        write_text(self.path, "".join(f"{line}\n" for line in kept))


def finished_before(line: str, epoch: int) -> bool:
    """Say whether a line is whole and of an earlier epoch."""
    try:
        return int(json.loads(line)["epoch"]) < epoch
    except (json.JSONDecodeError, KeyError, TypeError):
        return False  # cut off when the run was stopped; its epoch is run again
