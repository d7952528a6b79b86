"""Materialize: write a plan's samples (images, labels, masks, boxes, keypoints) as tar shards or Parquet.

A job file::

    job: materialize
    plan: plan.yaml
    split: train
    format: tar             # or parquet
    encoding: png           # or jpeg, npy

Its one stage is in ``shard_stage``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from ..atomic_io import atomic_write
from .options import MaterializeOptions
from .shard_stage import SHARDS, ShardStage

if TYPE_CHECKING:
    from ..jobs.contracts import Context
    from ..jobs.stages import Inputs

BOOKKEEPING = "_lightwell"
INDEX_NAME = "index.parquet"


class Materialize(MaterializeOptions):
    """Batch job that writes the images of a view into shards with an index."""

    @property
    def stages(self) -> tuple[ShardStage, ...]:
        """The stage that writes the shards."""
        return (ShardStage(self),)

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

    def finish(self, records: Inputs, context: Context) -> Mapping[str, Any]:
        """Write the index of the shards.

        Raises:
            OutputError: a file cannot be written.
        """
        from .result_index import parquet_index, tar_index

        written = records[SHARDS]
        shards = set(written["shard"].unique().to_pylist())
        source = self.plan.load_index()
        index = context.out / self._index_name
        if self.format == "tar":
            tar_index(written, source, encoding=self.encoding, num_epochs=self.epochs).save(index)
        else:
            with atomic_write(index) as file:
                pq.write_table(parquet_index(written), file, compression="zstd")
        num_written = written.num_rows
        assert num_written == context.counts["used"], (num_written, context.counts)
        return {
            "written": num_written,
            **{name: context.counts[name] for name in ("read", "replaced", "skipped")},
            "shards": len(shards),
            "bytes": sum((context.out / name).stat().st_size for name in shards),
            "format": self.format,
            "encoding": self.encoding if self.encoding != "jpeg" else f"jpeg, quality {self.quality}",
        }
