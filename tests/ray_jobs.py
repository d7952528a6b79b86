"""Jobs that tests run in Ray workers or other processes, which import this module by name."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from lightwell.pipeline.batch.batch import Batch
from lightwell.pipeline.errors import ModelError
from lightwell.pipeline.index.readers import Chunk
from lightwell.pipeline.jobs.contracts import Context
from lightwell.pipeline.plan.plan import Plan
from lightwell.pipeline.plan.view import View


@dataclass(frozen=True)
class Sums:
    """Batch job that sums the pixels of every image that was not replaced."""

    plan: Plan
    view: View = field(default_factory=View)
    seconds: float = 0.0
    """Duration of each batch."""
    trap: Path | None = None
    """While this file exists, the process that gets a batch with the step ``trapped`` is killed."""
    trapped: int = -1
    broken: bool = False

    schema = pa.schema({"key": pa.string(), "epoch": pa.int64(), "sum": pa.int64()})

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    @contextmanager
    def open(self) -> Iterator[Any]:
        if self.broken:
            raise ModelError("model: expected weights, got none; do something")

        def work(batch: Batch) -> pa.RecordBatch:
            time.sleep(self.seconds)
            if batch.step == self.trapped and self.trap is not None and self.trap.exists():
                os.kill(os.getpid(), signal.SIGKILL)
            batch.images.add_(0)  # a batch is its consumer's own: it may be written to
            kept = [row for row in range(len(batch)) if not batch.replaced[row]]
            columns = {
                "key": [batch.keys[row] for row in kept],
                "epoch": [batch.epoch] * len(kept),
                "sum": [int(batch.images[row].double().sum()) for row in kept],
            }
            return pa.record_batch(columns, schema=self.schema)

        yield work

    def finish(self, records: Any, context: Context) -> dict[str, Any]:
        return {
            "num": records.num_rows,
            "total": sum(records["sum"].to_pylist()),
            "counts": dict(context.counts),
            "bad": [entry["key"] for entry in context.quarantine],
        }


class CountImages:
    """A training job: two passes over the images for training, slowly."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.view = View(num_epochs=2, split="train")

    def run(self, feed: Iterator[Batch], context: object) -> dict[str, int]:
        num = 0
        for batch in feed:
            num += len(batch)
            time.sleep(0.05)
        return {"images": num}


class CountOnRay(CountImages):
    """The same by another name."""


@dataclass(frozen=True)
class SlowChunk:
    """A chunk of an index's files that takes its time."""

    chunk: Chunk[Any]
    seconds: float

    @property
    def uris(self) -> Any:
        return self.chunk.uris

    def scan(self, storage: Any) -> Any:
        time.sleep(self.seconds)
        return self.chunk.scan(storage)


def files_of(out: Path) -> dict[str, str]:
    """Hash all files that a job left, but for the list of them."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.name.startswith(".lightwell")
    }
