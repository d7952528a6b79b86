"""Stage that predicts class masks, and counts their pixels beside those of the index's masks where it evaluates."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....pipeline.atomic_io import write_bytes
from ....pipeline.jobs.fingerprint import fingerprint_of
from ....pipeline.jobs.stages import Batches, Inputs, Process, Source

if TYPE_CHECKING:
    import torch

    from ....pipeline.batch.batch import Batch
    from ....pipeline.index.index import Index
    from ...training.checkpoint import CheckpointMetadata
    from ...training.tasks.segmentation import SegmentationTask
    from ..config import ScoringJob

MASKS = "masks"
"""Name of the stage, and of the folder of its files."""
SUFFIX = re.compile(r"-[0-9a-f]{10}$")
MAX_NAME = 120
PART_IMAGES, PART_BYTES = 512, 1 << 28
RECORDS = pa.schema(
    [
        ("key", pa.string()),
        ("mask", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("counts", pa.list_(pa.int64())),
        ("pairs", pa.list_(pa.int64())),
        ("pixels", pa.list_(pa.int64())),
        ("loss", pa.list_(pa.float64())),
    ]
)
"""One row for each picture: its mask's file (null in evaluations), height and width, and the number of its pixels of each class.

In evaluations also ``pairs``, true class * classes + predicted class, ascending, with the number of ``pixels`` of each in the
network's image, and ``loss``: totals and weights of the training's loss.
"""
ENCODED = RECORDS.append(pa.field("png", pa.large_binary()))
"""With the mask as PNG."""


@dataclass(frozen=True)
class MaskStage:
    """Predicts the mask of each picture of a job's view."""

    job: ScoringJob
    evaluates: bool = False
    """Compare with the index's masks instead of writing files."""

    name = MASKS
    needs = ()
    schema = RECORDS
    part_schema = ENCODED

    def fingerprint(self) -> str:
        """Hash everything that determines the records."""
        return fingerprint_of([self.job.fingerprint(), self.evaluates])

    def source(self, inputs: Inputs) -> Source:  # noqa: ARG002
        """Return the batches of the job's view."""
        return Batches(self.job.plan, self.job.view)

    @contextmanager
    def open(self, inputs: Inputs) -> Iterator[Process]:  # noqa: ARG002
        """Load the network; yields the function that predicts a batch.

        Raises:
            ModelError: the checkpoint cannot be used, or there is no such device.
        """
        from ....pipeline.compiler.program import Program
        from ..outputs import read_trained
        from .geometry import MaskGeometry
        from .segmenter import Segmenter, class_masks
        from .table import count_classes

        job = self.job
        segmenter = Segmenter.load(job.checkpoint, device=job.device, flip=job.tta == "flip")
        geometry = MaskGeometry(Program.compile(job.plan))
        index = job.plan.load_index()
        measure = None
        if self.evaluates:
            measure = pixel_measure(segmentation_task(read_trained(job.checkpoint), index))

        def process(batch: Batch) -> pa.RecordBatch:
            scores = segmenter(batch.images, batch.keys)
            found = class_masks(scores)
            rows = np.flatnonzero(batch.is_valid).tolist()
            sizes = picture_sizes(index, [batch.keys[row] for row in rows])
            measured = [{}] * len(rows) if measure is None else measure(batch, rows, scores, found)
            records = []
            for row, size, more in zip(rows, sizes, measured, strict=True):
                mask = geometry.to_picture(found[row], size)
                counts = count_classes(mask, len(segmenter.classes))
                record = {"key": batch.keys[row], "height": mask.shape[0], "width": mask.shape[1], **more}
                if not self.evaluates:
                    record |= {"mask": mask_name(batch.keys[row]), "png": to_png(mask)}
                records.append({**record, "counts": counts.tolist()})
            return pa.RecordBatch.from_pylist(records, schema=ENCODED)

        yield process

    def is_full(self, records: pa.Table) -> bool:
        """Return whether the records make a part."""
        num_bytes = pc.sum(pc.binary_length(records["png"])).as_py() or 0
        return records.num_rows >= PART_IMAGES or num_bytes >= PART_BYTES

    def part_files(self, records: pa.Table, part: int) -> Sequence[str]:  # noqa: ARG002
        """Return the names of the masks."""
        return [*map(str, records["mask"].drop_null().to_pylist())]

    def write_part(self, records: pa.Table, part: int, out: Path) -> pa.Table:  # noqa: ARG002
        """Write the masks; returns the records without them.

        Raises:
            OutputError: a file cannot be written.
        """
        for name, data in zip(records["mask"], records["png"], strict=True):
            if name.is_valid:
                write_bytes(out / name.as_py(), data.as_py())
        return records.drop_columns(["png"])


def mask_name(key: str) -> str:
    """Return the file of a picture's mask, relative to the results; different for different keys."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", key).lstrip(".")[:MAX_NAME]
    if not plain or plain != key or SUFFIX.search(key):
        plain = f"{plain or 'picture'}-{blake2b(key.encode(), digest_size=5).hexdigest()}"
    return f"{MASKS}/{plain}.png"


def to_png(mask: np.ndarray) -> bytes:
    """Encode a mask."""
    import cv2

    done, data = cv2.imencode(".png", mask)
    assert done, "OpenCV encodes every picture of bytes"
    return data.tobytes()


def picture_sizes(index: Index, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Return height and width of upright pictures."""
    from ....pipeline.index.key_rows import rows_of
    from ....pipeline.load.loader import upright_size

    found = index.table.select(["height", "width", "orientation"]).take(pa.array(rows_of(index, keys)))
    return [upright_size(row) for row in found.to_pylist()]


def segmentation_task(metadata: CheckpointMetadata, index: Index) -> SegmentationTask:
    """Return the task of a checkpoint, on an index.

    Raises:
        PlanError: the index has no masks.
    """
    from ...training.tasks.segmentation import SegmentationTask

    void = metadata.job.get("void", ())
    return SegmentationTask(
        index,
        classes=metadata.classes,
        void=(void,) if isinstance(void, int) else tuple(void),
        cross_entropy=metadata.job.get("loss.cross_entropy", 1.0),
        dice=metadata.job.get("loss.dice", 1.0),
    )


def pixel_measure(
    task: SegmentationTask,
) -> Callable[[Batch, list[int], torch.Tensor, np.ndarray], list[dict[str, Any]]]:
    """Return a function that compares the masks of some rows of a batch with those of the index."""
    import torch

    from ...training.train_batch import TrainBatch

    side = len(task.classes)

    def measure(
        batch: Batch, rows: list[int], scores: torch.Tensor, found: np.ndarray
    ) -> list[dict[str, Any]]:
        targets = task.targets(batch).own.to(scores.device)
        criterion = task.criterion(training=False, like=scores)
        unused = torch.zeros(1, dtype=torch.bool, device=scores.device)
        measured = []
        for row in rows:
            truth = targets[row].cpu().numpy()
            pairs = truth.astype(np.int64) * side + found[row]
            numbers, pixels = np.unique(pairs[truth >= 0], return_counts=True)
            one = TrainBatch(scores[row : row + 1], targets[row : row + 1], unused)
            sums = (criterion.totals(one.inputs, one), criterion.weights(one))
            loss = torch.cat([each.double().cpu() for each in sums])
            measured.append({"pairs": numbers.tolist(), "pixels": pixels.tolist(), "loss": loss.tolist()})
        return measured

    return measure
