"""Keys of the job file of a materialization."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ..config.checked_model import CheckedModel
from ..plan.plan import Plan
from ..plan.view import View
from .encoding import EncodingName
from .shards import FormatName


class MaterializeOptions(CheckedModel):
    """The samples that are written, and how."""

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
    def view(self) -> View:
        """The view that is written, in order."""
        return View(split=self.split, augment=self.augment, num_epochs=self.epochs)
