"""The stage that writes shards.

The runner calls ``write_part``, which writes the part's shards, before it records the part as done. So a killed run rewrites
at most one part, with equal bytes, and every image is written exactly once. Rows in which a bad image was replaced are
omitted, since they contain another sample: read = written + replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ..jobs.fingerprint import fingerprint_of
from ..jobs.stages import Batches, Inputs, Process, Source
from .encoding import Encoder
from .result_index import SplitLookup
from .shards import Layout, ShardWriter, shard_names

if TYPE_CHECKING:
    from ..batch.batch import Batch
    from .options import MaterializeOptions

SHARDS = "shards"
SHARD_VERSION = 3
"""Increased whenever equal records give different shards."""

PLACE = ("shard", "row", "offset", "bytes", "mask_offset", "mask_bytes")
"""Columns that say where an image was written."""
RECORDS = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("epoch", pa.int64()),
        ("label", pa.int64()),
        ("labels", pa.list_(pa.int64())),
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

ENCODED = pa.schema(
    [
        *(field for field in RECORDS if field.name not in PLACE),
        ("image", pa.large_binary()),
        ("mask_image", pa.large_binary()),
    ]
)
"""One row per image of a batch, with its encoded pixels."""


@dataclass(frozen=True)
class ShardStage:
    """Encodes the images of a view and writes them into shards."""

    options: MaterializeOptions

    name = SHARDS
    needs = ()
    schema = RECORDS
    part_schema = ENCODED

    def fingerprint(self) -> str:
        """Hash everything that determines the shards: plan, job and encoder."""
        import cv2

        own = self.options.model_dump(mode="json", exclude={"plan"})
        return fingerprint_of([SHARD_VERSION, self.options.plan.fingerprint(), own, cv2.__version__])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the view that is written, in order."""
        return Batches(self.options.plan, self.options.view)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Start encoder threads; yields the function that encodes a batch."""
        encoder = Encoder(self.options.encoding, self.options.quality)
        split_lookup = SplitLookup(self.options.plan.load_index(), self.options.split)
        with ThreadPoolExecutor(thread_name_prefix="lightwell-encode") as pool:

            def process(batch: Batch) -> pa.RecordBatch:
                rows = [row for row in range(len(batch)) if batch.is_valid[row]]
                records = pool.map(
                    lambda row: encoder.record(batch, row, split_lookup(batch.keys[row])), rows
                )
                return pa.RecordBatch.from_pylist(list(records), schema=ENCODED)

            yield process

    def is_full(self, records: pa.Table) -> bool:
        """Return whether the records fill a shard."""
        num_bytes = pc.sum(pc.binary_length(records["image"])).as_py() or 0
        return records.num_rows >= self.options.shard_images or num_bytes >= self.options.shard_bytes

    def write_part(self, records: pa.Table, part: int, out: Path) -> pa.Table:
        """Write a part's shards; returns its records without the images.

        Raises:
            OutputError: a file cannot be written.
        """
        writer = ShardWriter(
            self.options.format, self.options.encoding, Layout.of(self.options.plan.load_index())
        )
        written = writer.write(records.to_pylist(), part, out)
        return pa.Table.from_pylist(written, schema=RECORDS)

    def part_files(self, records: pa.Table, part: int) -> list[str]:
        """Return the names of a part's shards."""
        return shard_names(records["split"].unique().to_pylist(), part, self.options.format)
