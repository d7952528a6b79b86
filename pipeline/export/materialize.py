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
from typing import TYPE_CHECKING, Any, Self

import pyarrow.parquet as pq
from pydantic import Field, model_validator

from ..atomic_io import atomic_write
from ..config.checked_model import CheckedModel
from ..plan.plan import Plan
from ..plan.view import View
from .encoding import EncodingName
from .shard_stage import SHARDS, ShardStage
from .shards import FormatName

if TYPE_CHECKING:
    from ..jobs.contracts import Context
    from ..jobs.stages import Inputs

BOOKKEEPING = "_lightwell"
INDEX_NAME = "index.parquet"


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
    """Encoded bytes per shard, rounded up to whole batches; held in memory twice, with Parquet three times."""

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
    def stages(self) -> tuple[ShardStage, ...]:
        """The stage that writes the shards."""
        return (ShardStage(self),)

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
