"""Materialize: write a plan's samples (images, labels, masks, boxes, keypoints) as tar shards or Parquet.

A job file::

    job: materialize
    plan: plan.yaml
    split: train
    format: tar             # or parquet
    encoding: png           # or jpeg, npy

The runner calls ``write_part``, which writes the part's shards, before it records the part as done. So a killed run rewrites
at most one part, with equal bytes, and every image is written exactly once. Rows in which a bad image was replaced are
omitted, since they contain another sample: read = written + replaced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from ..atomic_io import atomic_write
from ..config.checked_model import CheckedModel
from ..plan.plan import Plan
from ..plan.view import View
from .encoding import Encoder, EncodingName
from .result_index import SplitLookup
from .shards import FormatName, Layout, ShardWriter, shard_names

if TYPE_CHECKING:
    from ..batch.batch import Batch
    from ..jobs.contracts import Context, Record

BOOKKEEPING = "_lightwell"
INDEX_NAME = "index.parquet"
SHARD_VERSION = 2
"""Increased whenever equal records give different shards."""

RECORDS = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("epoch", pa.int64()),
        ("label", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int8()),
        ("boxes", pa.list_(pa.list_(pa.float32()))),
        ("box_labels", pa.list_(pa.int64())),
        ("keypoints", pa.list_(pa.list_(pa.float32()))),
        ("has_mask", pa.bool_()),
        ("hash", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("mask_offset", pa.int64()),
        ("mask_bytes", pa.int64()),
    ]
)
"""One row per written image, with its place in the shards."""


class Materialize(CheckedModel):
    """Batch job that writes the images of a view into shards with an index."""

    plan: Plan
    split: str | None = None
    """None writes all images."""
    augment: bool = False
    """Write the training view, with new random augmentations in each epoch."""
    epochs: int = Field(default=1, ge=1)
    format: FormatName = "tar"
    encoding: EncodingName = "png"
    """``png`` and ``jpeg`` for uint8 pixels; ``npy`` for any array of a batch, including floats (CHW)."""
    quality: int = Field(default=95, ge=1, le=100)
    """JPEG quality."""
    shard_images: int = Field(default=4096, ge=1)
    """Images per shard, rounded up to whole batches."""
    shard_bytes: int = Field(default=128_000_000, ge=1)
    """Encoded bytes per shard, rounded up to whole batches; held in memory, with Parquet twice."""

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        from ..compiler.program import Program

        if self.augment and self.plan.mix is not None:
            raise ValueError(
                "mix: expected a plan without mix, which applies to training batches, got "
                f"{self.plan.mix.kind}; leave mix out here and add it to the plan that reads the shards"
            )
        if self.encoding != "npy" and Program.compile(self.plan).normalization is not None:
            raise ValueError(
                f"encoding: expected bytes to write as {self.encoding}, got a plan that ends in Normalize; leave "
                "Normalize to the plan that reads the shards, or take encoding: npy"
            )
        if self.epochs > 1 and not self.augment:
            raise ValueError(
                f"epochs: expected 1 for a view that does not augment, since all are equal, got {self.epochs}; "
                "add augment: true, or leave epochs out"
            )
        return self

    @property
    def view(self) -> View:
        """The view that is written, in order."""
        return View(split=self.split, augment=self.augment, num_epochs=self.epochs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names and patterns of the files that are written."""
        return (self._index_name, f"*-[0-9][0-9][0-9][0-9][0-9][0-9].{self.format}")

    @property
    def bookkeeping_folder(self) -> str:
        """Folder for records, counts and the quarantine list; readers ignore folders that start with ``_``."""
        return BOOKKEEPING

    @property
    def _index_name(self) -> str:
        """For Parquet the index is in the bookkeeping folder, where readers do not mistake it for a shard."""
        return INDEX_NAME if self.format == "tar" else f"{BOOKKEEPING}/{INDEX_NAME}"

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the records."""
        return RECORDS

    def fingerprint(self) -> str:
        """Hash everything that determines the shards: plan, job and encoder."""
        import cv2

        own = self.model_dump(mode="json", exclude={"plan"})
        facts = [SHARD_VERSION, self.plan.fingerprint(), own, cv2.__version__]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @contextmanager
    def open(self) -> Iterator[Callable[[Batch], Sequence[Record]]]:
        """Start encoder threads; yields the function that encodes a batch."""
        encoder = Encoder(self.encoding, self.quality)
        split_lookup = SplitLookup(self.plan.load_index(), self.split)
        with ThreadPoolExecutor(thread_name_prefix="lightwell-encode") as pool:

            def work(batch: Batch) -> list[Record]:
                rows = [row for row in range(len(batch)) if batch.is_valid[row]]
                return list(
                    pool.map(lambda row: encoder.record(batch, row, split_lookup(batch.keys[row])), rows)
                )

            yield work

    def is_full(self, records: Sequence[Record]) -> bool:
        """Return whether the records fill a shard."""
        num_bytes = sum(len(record["image"]) for record in records)
        return len(records) >= self.shard_images or num_bytes >= self.shard_bytes

    def write_part(self, records: Sequence[Record], part: int, out: Path) -> Sequence[Record]:
        """Write a part's shards; returns its records without the images.

        Raises:
            OutputError: a file cannot be written.
        """
        if not records:
            return []
        writer = ShardWriter(self.format, self.encoding, Layout.of(self.plan.load_index()))
        return writer.write(records, part, out)

    def part_files(self, records: Sequence[Record], part: int) -> list[str]:
        """Return the names of a part's shards."""
        return shard_names(records, part, self.format)

    def finish(self, records: pa.Table, context: Context) -> Mapping[str, Any]:
        """Write the index of the shards.

        Raises:
            OutputError: a file cannot be written.
        """
        from .result_index import parquet_index, tar_index

        shards = set(records["shard"].unique().to_pylist())
        source = self.plan.load_index()
        index = context.out / self._index_name
        if self.format == "tar":
            tar_index(records, source, encoding=self.encoding, num_epochs=self.epochs).save(index)
        else:
            with atomic_write(index) as file:
                pq.write_table(parquet_index(records), file, compression="zstd")
        written = records.num_rows
        assert written == context.counts["used"], (written, context.counts)
        return {
            "written": written,
            **{name: context.counts[name] for name in ("read", "replaced", "skipped")},
            "shards": len(shards),
            "bytes": sum((context.out / name).stat().st_size for name in shards),
            "format": self.format,
            "encoding": self.encoding if self.encoding != "jpeg" else f"jpeg, quality {self.quality}",
        }
