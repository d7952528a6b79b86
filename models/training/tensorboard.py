"""Metrics of finished epochs as an event file for TensorBoard, beside ``metrics.jsonl``."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...pipeline.atomic_io import write_bytes
from ...pipeline.errors import OutputError

EVENTS_NAME = "tensorboard/events.out.tfevents.lightwell"
"""Relative to the output folder; TensorBoard looks for ``tfevents`` in names of files."""
_NOT_METRICS = frozenset({"epoch", "split", "seconds"})


def write_events(metrics: Path, path: Path) -> None:
    """Write the numbers of a ``metrics.jsonl`` as scalars ``SPLIT/METRIC`` by epoch, the whole file anew.

    Args:
        metrics: ``metrics.jsonl`` of complete lines; it may be missing.
        path: the event file.

    Raises:
        OutputError: the file cannot be written.
    """
    from tensorboardX.proto.event_pb2 import Event

    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    first = _framed(Event(wall_time=0.0, file_version="brain.Event:2").SerializeToString())
    write_bytes(path, b"".join([first, *(record for line in lines for record in _records(json.loads(line)))]))


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line of ``metrics.jsonl`` to an event file, which TensorBoard may be reading.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(b"".join(_records(row)))
    except OSError as error:
        raise OutputError(
            f"expected to write {str(path)!r}, got {error.strerror or error}; free space, or choose another --out"
        ) from error


def _records(row: Mapping[str, Any]) -> Iterator[bytes]:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    step = int(row["epoch"]) + 1
    for name, value in row.items():
        if name not in _NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool):
            summary = scalar(f"{row['split']}/{name}", float(value))
            yield _framed(Event(wall_time=float(step), step=step, summary=summary).SerializeToString())


def _framed(data: bytes) -> bytes:
    """Frame a record as TensorFlow does: its length and its content, each with a checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + checksums[0] + data + checksums[1]
