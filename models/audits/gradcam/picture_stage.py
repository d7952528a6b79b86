"""The stage that keeps the images that the report shows, as the model saw them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from ....pipeline.compiler.program import Program
from ....pipeline.export.encoding import Encoder
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.load.decode.opencv import decode_opencv
from ....pipeline.plan.view import View
from ..findings.finding import read_findings
from .gallery import MAX_FINDINGS, MAX_OTHER, MAX_OWN, Picture, choose_keys
from .pictures import denormalize
from .records import FINDINGS, MAPS, PICTURES, read_predictions

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from .config import AuditConfig

SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "png": pa.binary(),
        "boxes": pa.list_(pa.list_(pa.float32())),  # x0, y0, x1, y1 in pixels; null without boxes
    }
)


@dataclass(frozen=True)
class PictureStage:
    """Pixels and boxes of the images in the report."""

    audit: AuditConfig

    name: ClassVar[str] = PICTURES
    needs: ClassVar[tuple[str, ...]] = (MAPS, FINDINGS)
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash the plan and the number of images."""
        bounds = [self.audit.gallery, MAX_FINDINGS, MAX_OWN, MAX_OTHER]
        return fingerprint_of([self.audit.plan.fingerprint(), bounds])

    def source(self, inputs: Inputs) -> Source:
        """Return the images of the gallery and of the findings."""
        found = read_findings(inputs[FINDINGS])
        keys = choose_keys(read_predictions(inputs[MAPS]), found, self.audit.gallery)
        return Batches(self.audit.plan, View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Yield a function that stores the images of a batch."""
        encoder = Encoder("png", 0)
        constants = Program.compile(self.audit.plan).normalization
        mean, std = (constants.mean, constants.std) if constants else ((0.0,) * 3, (1.0,) * 3)

        def process(batch: Batch) -> pa.RecordBatch:
            images = denormalize(batch.images.numpy(), mean, std)
            rows = np.flatnonzero(batch.is_valid).tolist()
            columns = {
                "key": [batch.keys[row] for row in rows],
                "png": [encoder.encode(images[row], batch.keys[row]) for row in rows],
                "boxes": [None if batch.boxes is None else batch.boxes[row][:, :4].tolist() for row in rows],
            }
            return pa.record_batch(columns, schema=SCHEMA)

        yield process


def read_pictures(records: pa.Table) -> dict[str, Picture]:
    """Decode the images of the stage's records, by key."""
    found = {}
    for record in records.to_pylist():
        pixels = np.asarray(decode_opencv(record["png"]), np.uint8)
        boxes = None if record["boxes"] is None else np.array(record["boxes"], np.float32).reshape(-1, 4)
        found[record["key"]] = Picture(pixels, boxes)
    return found
