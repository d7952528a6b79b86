"""Metrics of finished epochs as an event file for TensorBoard, beside ``metrics.jsonl``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...pipeline.atomic_io import write_bytes
from ...pipeline.errors import OutputError

EVENTS_NAME = "tensorboard/events.out.tfevents.lightwell"
"""Relative to the output folder; TensorBoard looks for ``tfevents`` in names of files."""
_NOT_METRICS = frozenset({"epoch", "split", "seconds"})


class EventLog:
    """An event file with the scalars ``SPLIT/METRIC`` by epoch, which grows while TensorBoard reads it."""

    def __init__(self, path: Path, metrics: Path) -> None:
        """Write the file anew from the finished epochs of a ``metrics.jsonl``, if there is one.

        Args:
            path: the event file.
            metrics: ``metrics.jsonl`` of the training.

        Raises:
            OutputError: the file cannot be written.
        """
        self._path = path
        self._seconds = 0.0
        lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
        write_bytes(path, b"".join([_header(), *self._records(json.loads(line) for line in lines)]))

    def append(self, row: Mapping[str, Any]) -> None:
        """Add the numbers of one line of ``metrics.jsonl``.

        Raises:
            OutputError: the file cannot be written.
        """
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(self._records([row])))
        except OSError as error:
            raise OutputError(
                f"expected to write {str(self._path)!r}, got {error.strerror or error}; free space, or choose another --out"
            ) from error

    def _records(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        for row in rows:
            self._seconds += float(row.get("seconds") or 0)
            for name, value in row.items():
                if name in _NOT_METRICS or isinstance(value, bool) or not isinstance(value, int | float):
                    continue
                summary = scalar(f"{row['split']}/{name}", float(value))
                event = Event(wall_time=self._seconds, step=int(row["epoch"]) + 1, summary=summary)
                yield _framed(event.SerializeToString())


def _header() -> bytes:
    from tensorboardX.proto.event_pb2 import Event

    return _framed(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())


def _framed(data: bytes) -> bytes:
    """Frame a record as TensorFlow does: its length and its content, each with a checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]
