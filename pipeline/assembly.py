"""From decoded pictures to a finished batch: Albumentations, replacement, stacking, one normalising pass."""

from __future__ import annotations

import copy
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .batch import Batch
from .errors import PlanError, RunError
from .keys import keyed_bits, keyed_generator, keyed_random
from .loading import Loaded, SampleLoader
from .mixing import mix_batch
from .plan import Normalization
from .program import Program
from .quarantine import Quarantine, QuarantineEntry
from .schedule import BatchSpec, replacements
from .view import View

BYTE_RANGE = 255.0


@dataclass(frozen=True, slots=True)
class Finished:
    """One picture after the policy: pixels HWC, with its mask and boxes."""

    key: str
    label: int
    image: np.ndarray
    mask: np.ndarray | None
    boxes: np.ndarray | None
    replaced: bool = False


class BatchAssembly:
    """Turns decoded rows into batches; every pool thread may call ``assemble`` at the same time."""

    def __init__(
        self, program: Program, view: View, loader: SampleLoader, rows: np.ndarray, quarantine: Quarantine
    ) -> None:
        self._program = program
        self._view = view
        self._loader = loader
        self._rows = rows
        self._quarantine = quarantine
        self._composes = {
            boxes: program.compose(augment=view.augment, boxes=boxes) for boxes in (False, True)
        }
        self._threads = threading.local()

    def assemble(self, spec: BatchSpec, loaded: list[Loaded]) -> Batch:
        """Run the policy over a batch, replace what fails, stack, normalise and mix.

        Raises:
            RunError: a sample and all of its replacements failed.
            PlanError: the finished images differ in size.
        """
        finished = [self._finish_or_replace(sample, spec.epoch) for sample in loaded]
        num_replaced = sum(sample.replaced for sample in finished)
        self._quarantine.count(read=len(finished), used=len(finished) - num_replaced, replaced=num_replaced)
        batch = _stack(finished, spec, self._program.normalization)
        mix = self._program.plan.mix if self._view.augment else None
        return mix_batch(batch, mix, seed=self._program.plan.seed) if mix else batch

    def _finish_or_replace(self, sample: Loaded, epoch: int) -> Finished:
        first = self._finish(sample, epoch)
        if isinstance(first, Finished):
            return first
        step, reason = first
        key = str(sample.row["key"])
        for row in replacements(self._rows, seed=self._program.plan.seed, epoch=epoch, key=key):
            other = self._finish(self._loader.load_one(int(row)), epoch)
            if isinstance(other, Finished):
                self._note(sample, step, reason, other.key, epoch)
                return Finished(other.key, other.label, other.image, other.mask, other.boxes, replaced=True)
        self._note(sample, step, reason, None, epoch)
        raise RunError(
            f"{step} of {key!r}: {reason}; and none of its replacements could be used either. "
            "Wanted mostly readable images; look at the quarantine list, and index the folder again"
        )

    def _note(self, sample: Loaded, step: str, reason: str, replaced_by: str | None, epoch: int) -> None:
        decoders = ", ".join(sample.decoded.decoders)
        row = sample.row
        self._quarantine.add(
            QuarantineEntry(row["key"], row["uri"], step, reason, decoders, replaced_by, epoch)
        )

    def _finish(self, sample: Loaded, epoch: int) -> Finished | tuple[str, str]:
        """Run the policy over one picture; a tuple is the step that failed and why."""
        if sample.decoded.image is None:
            return sample.step, sample.decoded.reason
        row = sample.row
        boxes = row.get("boxes")
        compose = self._compose(with_boxes=boxes is not None)
        bits = keyed_bits("augment", self._program.plan.seed, epoch, row["key"])
        compose.set_random_state(keyed_generator(bits), keyed_random(bits))
        targets: dict[str, Any] = {"image": sample.decoded.image}
        try:
            if row.get("mask"):
                targets["mask"] = read_mask(row["mask"])
            if boxes is not None:
                targets["bboxes"] = np.asarray(boxes, np.float32).reshape(-1, 4)
                targets["box_rows"] = np.arange(len(boxes))
            done = compose(**targets)
        except (
            Exception
        ) as error:  # whatever a transform raises, it costs this image only and is written down
            return "policy", f"{type(error).__name__}: {' '.join(str(error).split())}"
        found = np.asarray(done["bboxes"], np.float32).reshape(-1, 4) if boxes is not None else None
        return Finished(row["key"], int(row["label"]), done["image"], done.get("mask"), found)

    def _compose(self, *, with_boxes: bool) -> Any:
        """Return this thread's own copy of the Albumentations pipeline, since it holds the drawing state."""
        name = "with_boxes" if with_boxes else "plain"
        if not hasattr(self._threads, name):
            setattr(self._threads, name, copy.deepcopy(self._composes[with_boxes]))
        return getattr(self._threads, name)


def read_mask(uri: str) -> np.ndarray:
    """Read a label mask as uint8 (H, W); a palette's indices are the labels.

    Raises:
        ValueError: the file holds more than one channel or more than 8 bits.
        OSError: it cannot be read.
    """
    from PIL import Image

    with Image.open(io.BytesIO(Path(uri).read_bytes())) as opened:
        mask = np.array(opened)
    if mask.dtype == np.bool_:
        mask = mask.astype(np.uint8)
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(
            f"mask {uri}: wanted one channel of 8 bits, got {mask.shape} {mask.dtype}; save it as a gray PNG"
        )
    return mask


def _stack(finished: list[Finished], spec: BatchSpec, normalization: Normalization | None) -> Batch:
    first = finished[0].image
    for sample in finished:
        if sample.image.shape != first.shape:
            raise PlanError(
                f"preprocess: wanted images of one size in a batch, got {first.shape[1]}x{first.shape[0]} "
                f"({finished[0].key!r}) and {sample.image.shape[1]}x{sample.image.shape[0]} ({sample.key!r}); "
                "end preprocess with a Resize or a crop"
            )
    masks = [sample.mask for sample in finished if sample.mask is not None]
    boxes = [sample.boxes for sample in finished if sample.boxes is not None]
    return Batch(
        images=to_tensor(np.stack([sample.image for sample in finished]), normalization),
        labels=torch.tensor([sample.label for sample in finished], dtype=torch.int64),
        keys=tuple(sample.key for sample in finished),
        epoch=spec.epoch,
        step=spec.step,
        replaced=np.array([sample.replaced for sample in finished], dtype=bool),
        masks=torch.from_numpy(np.stack(masks)) if len(masks) == len(finished) else None,
        boxes=tuple(boxes) if len(boxes) == len(finished) else None,
    )


def to_tensor(images_nhwc: np.ndarray, normalization: Normalization | None) -> torch.Tensor:
    """Lay out and normalise a batch in one pass.

    Returns:
        uint8 NHWC as it came where the plan does not normalise and the policy left bytes; else float32 NCHW in
        channels_last memory, which costs no transposition and is what convolutions on a CPU like best.
    """
    if images_nhwc.dtype == np.uint8 and normalization is None:
        return torch.from_numpy(images_nhwc)
    if normalization is None:
        return torch.from_numpy(images_nhwc.astype(np.float32, copy=False)).permute(0, 3, 1, 2)
    scale = np.float32(1 / (BYTE_RANGE * np.asarray(normalization.std, np.float64)))
    shift = np.float32(
        -np.asarray(normalization.mean, np.float64) / np.asarray(normalization.std, np.float64)
    )
    finished = np.multiply(images_nhwc, scale, dtype=np.float32)
    finished += shift
    return torch.from_numpy(finished).permute(0, 3, 1, 2)
