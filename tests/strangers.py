"""Indexes of what strangers wrote: read or refused in words of ours, with books that add up, and counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, settings
from lightwell import Index, LightwellError, build_index
from lightwell.pipeline.text import printable


def tried(times: int) -> settings:
    """So many examples, however slow the machine is, and none remembered."""
    return settings(max_examples=times, deadline=None, database=None, suppress_health_check=list(HealthCheck))


class Strangers:
    """Indexes sources and counts what became of them; anything but an error of ours is raised."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def index(self, source: Path | str, **options: Any) -> Index | None:
        """Index, write and read; None where the source was refused in one line."""
        said, index = "", None
        try:
            index = build_index(source, num_threads=1, max_wait_s=0.1, **options)
        except LightwellError as error:
            said = str(error)
        if index is None:
            assert said
            assert printable(said) == said
            self.counts["refused"] += 1
            return None
        table = read_back(index)
        assert table.num_rows == len(index)
        rows = table.select(["status", "labels"]).to_pylist()
        num_counted = sum(len(row["labels"] or ()) or 1 if row["status"] == "ok" else 1 for row in rows)
        assert (
            sum(row["count"] for row in index.counts()) == num_counted
        )  # an image counts in each of its classes
        assert all(isinstance(status, str) and status for status in table["status"].to_pylist())
        assert len(set(table["key"].to_pylist())) == len(index)
        self.counts["read"] += 1
        return index

    def check(self) -> None:
        """Print how many cases were tried, and check that some were read."""
        sys.stdout.write(f"{self.counts.total():,} cases: {dict(self.counts)}; raw exceptions: none\n")
        assert not self.counts or self.counts["read"] > 0


def read_back(index: Index) -> pa.Table:
    """Write an index as a file has it, without waiting for the disk, and read it."""
    sink = pa.BufferOutputStream()
    pq.write_table(index.table, sink)
    return pq.read_table(pa.BufferReader(sink.getvalue()), schema=index.table.schema)


def remarks(index: Index, kind: str) -> int:
    """How much of a kind the index left out, merged or converted."""
    return sum(int(one["count"]) for one in index.source["remarks"] if one["kind"] == kind)


def statuses(index: Index) -> dict[str, str]:
    """Statuses by key."""
    return dict(zip(index.table["key"].to_pylist(), index.table["status"].to_pylist(), strict=True))
