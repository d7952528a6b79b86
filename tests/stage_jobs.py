"""A batch job of three stages, each over another kind of source, that can be killed in any of them."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from lightwell import (
    Batches,
    Context,
    Files,
    FileSample,
    Images,
    ImageSample,
    Plan,
    Rows,
    View,
    fingerprint_of,
)
from lightwell.pipeline.errors import RunError
from lightwell.pipeline.jobs.stages import Inputs, Process, Source


@dataclass(frozen=True)
class Trap:
    """Kills the process that handles one item of a stage, while a file exists; slows the others down."""

    file: Path | None = None
    stage: str = ""
    key: str = ""
    seconds: float = 0.0

    def pass_by(self, stage: str, keys: Iterable[str]) -> None:
        """Handle an item."""
        time.sleep(self.seconds)
        if self.file is not None and stage == self.stage and self.key in keys and self.file.exists():
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Sizes:
    """Bytes of the files."""

    plan: Plan
    trap: Trap

    name = "sizes"
    needs = ()
    schema = pa.schema({"key": pa.string(), "bytes": pa.int64()})

    def fingerprint(self) -> str:
        return self.plan.load_index().fingerprint()

    def source(self, inputs: Inputs) -> Source:
        return Files(self.plan, batch_size=3)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        def process(files: Iterable[FileSample]) -> pa.RecordBatch:
            found = [(file.key, len(file.data)) for file in files]
            self.trap.pass_by(self.name, [key for key, _ in found])
            return pa.record_batch(
                [list(column) for column in zip(*found, strict=True)] or [[], []], schema=self.schema
            )

        yield process


@dataclass(frozen=True)
class Colours:
    """Mean colour and size of the images as decoded."""

    plan: Plan
    trap: Trap

    name = "colours"
    needs = ()
    schema = pa.schema({"key": pa.string(), "mean": pa.float64(), "height": pa.int32(), "width": pa.int32()})

    def fingerprint(self) -> str:
        return self.plan.load_index().fingerprint()

    def source(self, inputs: Inputs) -> Source:
        return Images(self.plan, batch_size=2)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        def process(images: Iterable[ImageSample]) -> pa.RecordBatch:
            found = [(one.key, float(one.image.mean()), *one.image.shape[:2]) for one in images]
            self.trap.pass_by(self.name, [row[0] for row in found])
            columns = [list(column) for column in zip(*found, strict=True)] or [[], [], [], []]
            return pa.record_batch(columns, schema=self.schema)

        yield process


@dataclass(frozen=True)
class Darkest:
    """The darkest images, by the records of the other two, a few rows at a time."""

    threshold: float
    trap: Trap

    name = "darkest"
    needs = ("sizes", "colours")
    schema = pa.schema({"key": pa.string(), "mean": pa.float64(), "bytes": pa.int64()})

    def fingerprint(self) -> str:
        return fingerprint_of(self.threshold)

    def source(self, inputs: Inputs) -> Source:
        return Rows("colours", batch_size=4)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        sizes = dict(zip(*inputs["sizes"].to_pydict().values(), strict=True))

        def process(rows: pa.Table) -> pa.RecordBatch:
            self.trap.pass_by(self.name, rows["key"].to_pylist())
            kept = rows.filter(pa.array(rows["mean"].to_numpy() < self.threshold))
            keys = kept["key"].to_pylist()
            columns = {"key": keys, "mean": kept["mean"].to_numpy(), "bytes": [sizes[key] for key in keys]}
            return pa.record_batch(columns, schema=self.schema)

        yield process


@dataclass(frozen=True)
class Chain:
    """The job."""

    plan: Plan
    threshold: float = 120.0
    title: str = "Dark images"
    trap: Trap = field(default_factory=Trap)

    @property
    def stages(self) -> tuple[Any, ...]:
        return Sizes(self.plan, self.trap), Colours(self.plan, self.trap), Darkest(self.threshold, self.trap)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("dark.json", "colours.parquet")

    def finish(self, records: Inputs, context: Context) -> dict[str, Any]:
        context.export_records("colours", "colours.parquet")
        found = {
            "title": self.title,
            "dark": records["darkest"]["key"].to_pylist(),
            "mean": float(np.mean(records["colours"]["mean"].to_numpy())),
            "counts": dict(context.counts),
            "bad": sorted((entry["key"], entry["step"]) for entry in context.quarantine),
        }
        (context.out / "dark.json").write_text(json.dumps(found))
        return found


@dataclass(frozen=True)
class BrokenStage(Sizes):
    """A stage whose function is replaced."""

    function: Callable[[Any], Any] = lambda items: None

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        yield self.function


@dataclass(frozen=True)
class OneAtATime(Darkest):
    """The same, one row at a time, which fails where two threads are in its function at once."""

    def source(self, inputs: Inputs) -> Source:
        return Rows("colours", batch_size=1)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        turn = threading.Lock()
        with super().open(inputs) as function:

            def process(rows: pa.Table) -> pa.RecordBatch:
                if not turn.acquire(blocking=False):
                    raise RunError(
                        "one_at_a_time: expected one item at a time, got two; process one after another"
                    )
                time.sleep(0.03)
                turn.release()
                return function(rows)

            yield process


@dataclass(frozen=True)
class ChainOneAtATime(Chain):
    """The job with a stage that only one thread may be in."""

    @property
    def stages(self) -> tuple[Any, ...]:
        sizes, colours, _ = super().stages
        return sizes, colours, OneAtATime(self.threshold, self.trap)


@dataclass(frozen=True)
class Thumbnails:
    """A stage over batches whose view depends on the records of another."""

    plan: Plan
    name = "thumbnails"
    needs = ("darkest",)
    schema = pa.schema({"key": pa.string(), "sum": pa.int64()})

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    def source(self, inputs: Inputs) -> Source:
        return Batches(self.plan, View(keys=tuple(inputs["darkest"]["key"].to_pylist())))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        def process(batch: Any) -> pa.RecordBatch:
            sums = batch.images.int().sum(dim=(1, 2, 3)).numpy()
            return pa.record_batch({"key": batch.keys, "sum": sums}, schema=self.schema)

        yield process


@dataclass(frozen=True)
class ChainWithThumbnails(Chain):
    """Four stages: the last reads what the third has found."""

    @property
    def stages(self) -> tuple[Any, ...]:
        return *super().stages, Thumbnails(self.plan)


def plan_in(folder: Path, num_images: int = 23) -> Plan:
    """Write pictures, one of them cut off after indexing, another one lost; returns their plan."""
    from lightwell import build_index
    from pictures import make_folder

    photos = make_folder(folder / "photos", num_images=num_images)
    build_index(photos, fractions={"test": 1.0}).save(folder / "index.parquet")
    damaged = photos / "dog" / "003.jpg"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    (photos / "cat" / "006.jpg").unlink()
    policy = [{"Resize": {"height": 32, "width": 32}}]
    return Plan.model_validate(
        {"index": folder / "index.parquet", "preprocess": policy, "batch": {"size": 2}}
    )
