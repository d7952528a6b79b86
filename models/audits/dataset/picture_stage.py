"""The stage that keeps thumbnails of the images that the report shows."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.plan.plan import Plan
from ....pipeline.plan.view import View
from ..findings.finding import read_findings
from .records import FINDINGS, PICTURES, RECORDS

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from ..findings.finding import Finding
    from .job import DatasetAudit

SCHEMA = pa.schema({"key": pa.string(), "jpeg": pa.binary()})
SIDE = 160
"""Longest side of a thumbnail in pixels."""
MAX_FINDINGS, MAX_SHOWN = 60, 8
"""Findings with thumbnails, and thumbnails of each: about 5 MB at most."""
QUALITY = 80


@dataclass(frozen=True)
class PictureStage:
    """Thumbnails of the images of the findings."""

    audit: DatasetAudit

    name: ClassVar[str] = PICTURES
    needs: ClassVar[tuple[str, ...]] = (RECORDS, FINDINGS)
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash the plan and the sizes."""
        return fingerprint_of([self.audit.plan.fingerprint(), SIDE, MAX_FINDINGS, MAX_SHOWN, QUALITY])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the findings that can be read."""
        records = inputs[RECORDS]
        readable = records.filter(pc.is_null(records["problem"]))["key"].to_pylist()
        keys = shown_keys(read_findings(inputs[FINDINGS]), readable)
        return Batches(thumbnail_plan(self.audit.plan), View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that encodes the images of a batch."""

        def process(batch: Batch) -> pa.RecordBatch:
            rows = np.flatnonzero(batch.is_valid).tolist()
            images = batch.images.numpy()
            return pa.record_batch(
                {
                    "key": [batch.keys[row] for row in rows],
                    "jpeg": [encode_thumbnail(images[row]) for row in rows],
                },
                schema=SCHEMA,
            )

        yield process


def shown_keys(found: Sequence[Finding], readable: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the images that the report shows, each once."""
    known = set(readable)
    keys = [key for finding in found[:MAX_FINDINGS] for key in finding.keys[:MAX_SHOWN] if key in known]
    return tuple(dict.fromkeys(keys))


def thumbnail_plan(plan: Plan) -> Plan:
    """Return a plan of the same index whose images are scaled to fit into a square and padded with white."""
    fit = [
        {"LongestMaxSize": {"max_size": SIDE}},
        {"PadIfNeeded": {"min_height": SIDE, "min_width": SIDE, "fill": 255}},
    ]
    return Plan.model_validate(
        {"index": plan.index, "preprocess": fit, "errors": plan.errors, "seed": plan.seed}
    )


def encode_thumbnail(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) or (H, W, 1), uint8, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
