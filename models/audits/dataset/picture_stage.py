"""The stage that keeps thumbnails of the images that the report shows."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from ....pipeline.geometry import Size
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source
from ....pipeline.load.decode.orientation import oriented_size
from ....pipeline.plan.plan import Plan
from ....pipeline.plan.view import View
from ..findings.finding import read_findings
from .records import FINDINGS, PICTURES, RECORDS

if TYPE_CHECKING:
    from ....pipeline.batch.batch import Batch
    from ..findings.finding import Finding
    from .job import DatasetAudit

SCHEMA = pa.schema({"key": pa.string(), "jpeg": pa.binary()})
VERSION = 2
"""To be increased when thumbnails differ from before."""
SIDE = 160
"""Longest side of a thumbnail in pixels."""
MAX_FINDINGS, MAX_OF_KIND = 60, 8
"""Findings with thumbnails, of all kinds and of each."""
MAX_SHOWN, MAX_COMPARED = 8, 2
"""Thumbnails of each that show it and that are to compare with; leaks are shown in pairs."""
MAX_CLASSES, MAX_OF_CLASS = 40, 3
"""Classes with thumbnails, and thumbnails of each; with those of the findings about 7 MB at most."""
QUALITY = 80


@dataclass(frozen=True)
class PictureStage:
    """Thumbnails of the images of the findings and of a few of each class."""

    audit: DatasetAudit

    name: ClassVar[str] = PICTURES
    needs: ClassVar[tuple[str, ...]] = (RECORDS, FINDINGS)
    schema = SCHEMA

    def fingerprint(self) -> str:
        """Hash the plan and the sizes."""
        return fingerprint_of(
            [
                VERSION,
                self.audit.plan.fingerprint(),
                SIDE,
                MAX_FINDINGS,
                MAX_OF_KIND,
                MAX_SHOWN,
                MAX_COMPARED,
                MAX_CLASSES,
                MAX_OF_CLASS,
                QUALITY,
            ]
        )

    def source(self, inputs: Inputs) -> Source:
        """Return the images that the report shows and that can be read."""
        records = inputs[RECORDS]
        readable = records.filter(pc.is_null(records["problem"]))
        of_findings = shown_keys(read_findings(inputs[FINDINGS]), readable["key"].to_pylist())
        keys = tuple(dict.fromkeys((*of_findings, *class_keys(readable))))
        return Batches(thumbnail_plan(self.audit.plan), View(split=self.audit.split, keys=keys))

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:
        """Yield a function that encodes the images of a batch."""
        records = inputs[RECORDS]

        def process(batch: Batch) -> pa.RecordBatch:
            rows = np.flatnonzero(batch.is_valid).tolist()
            images, sizes = batch.images.numpy(), upright_sizes(records, batch.keys)
            return pa.record_batch(
                {
                    "key": [batch.keys[row] for row in rows],
                    "jpeg": [
                        encode_thumbnail(without_padding(images[row], sizes[batch.keys[row]])) for row in rows
                    ],
                },
                schema=SCHEMA,
            )

        yield process


def shown_findings(found: Sequence[Finding]) -> list[Finding]:
    """Return the first findings of each kind, which the report shows with thumbnails; of others it lists the sentences."""
    counts: Counter[str] = Counter()
    shown = []
    for finding in found:
        counts[finding.kind] += 1
        if counts[finding.kind] <= MAX_OF_KIND:
            shown.append(finding)
    return shown[:MAX_FINDINGS]


def shown_keys(found: Sequence[Finding], readable: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of the images that the report shows, each once."""
    known = set(readable)
    shown = [
        key
        for finding in shown_findings(found)
        for key in (*finding.keys[:MAX_SHOWN], *finding.other_keys[: num_compared(finding)])
    ]
    return tuple(dict.fromkeys(key for key in shown if key in known))


def num_compared(finding: Finding) -> int:
    """Return how many images to compare with have thumbnails."""
    return MAX_SHOWN if finding.kind == "leakage" else MAX_COMPARED


def class_keys(readable: pa.Table) -> tuple[str, ...]:
    """Return the keys of a few images of each of the largest classes, evenly spaced in the order of the records.

    Images without a single class count as a class of their own.
    """
    names, keys = readable["class"].to_pylist(), readable["key"].to_pylist()
    rows: dict[str | None, list[str]] = {}
    for name, key in zip(names, keys, strict=True):
        rows.setdefault(name, []).append(key)
    largest = sorted(rows.values(), key=len, reverse=True)[
        :MAX_CLASSES
    ]  # stable: ties in the order of the records
    return tuple(
        own[place]
        for own in largest
        for place in np.linspace(0, len(own) - 1, min(len(own), MAX_OF_CLASS)).astype(int).tolist()
    )


def thumbnail_plan(plan: Plan) -> Plan:
    """Return a plan of the same index whose images are scaled to fit into a square and padded."""
    fit = [{"LongestMaxSize": {"max_size": SIDE}}, {"PadIfNeeded": {"min_height": SIDE, "min_width": SIDE}}]
    return Plan.model_validate(
        {"index": plan.index, "preprocess": fit, "errors": plan.errors, "seed": plan.seed}
    )


def upright_sizes(records: pa.Table, keys: Sequence[str]) -> dict[str, Size]:
    """Return height and width of upright images by key."""
    own = records.filter(pc.is_in(records["key"], value_set=pa.array(keys, pa.string())))
    return {
        row["key"]: oriented_size((row["height"], row["width"]), row["orientation"] or 1)
        for row in own.select(["key", "height", "width", "orientation"]).to_pylist()
    }


def without_padding(image: np.ndarray, size: Size) -> np.ndarray:
    """Return the part of a padded image (`SIDE`, `SIDE`, C) that shows an image of some height and width."""
    scale = SIDE / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    return image[top : top + height, left : left + width]


def encode_thumbnail(image: np.ndarray) -> bytes:
    """Return an image (H, W, 3) or (H, W, 1), uint8, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image if image.shape[2] == 3 else image[..., 0]).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
