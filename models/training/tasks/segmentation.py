"""Semantic segmentation: a class for each pixel, cross-entropy and Dice, intersection over union."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ....pipeline.batch.batch import Batch
from ....pipeline.errors import PlanError, RunError
from ....pipeline.formats.mask_headers import IGNORED
from ....pipeline.index.index import Index
from ..distributed.context import DistributedContext
from ..train_batch import Targets, TrainBatch
from .task import TINY, Criterion, MetricValues, RunningMetrics, Task

VOID, UNKNOWN = -1, -2
"""Targets of pixels without a class, and of values that the job does not name."""
SMOOTH = 1.0
"""Added to both sides of the Dice fraction, so that a class of one pixel is not all or nothing."""


@dataclass(frozen=True)
class DiceCrossEntropy:
    """Weighted sum of cross-entropy, a mean over pixels, and Dice loss, a mean over (image, class of the image).

    Dice: Milletari et al., "V-Net", 3DV 2016, in the form 1 - 2 |A B| / (|A| + |B|), with probabilities. Void pixels count in
    neither.
    """

    cross_entropy: float = 1.0
    dice: float = 1.0

    def totals(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return both sums, multiplied by their weights."""
        targets = batch.targets
        pixels = functional.cross_entropy(scores, targets, reduction="none", ignore_index=VOID).sum()
        if not self.dice:
            return self.cross_entropy * torch.stack([pixels, pixels.new_zeros(())])
        members = targets[:, None] == torch.arange(scores.shape[1], device=targets.device).view(1, -1, 1, 1)
        probabilities = scores.softmax(dim=1) * (targets >= 0)[:, None]
        common = (probabilities * members).sum(dim=(2, 3))
        sizes = members.sum(dim=(2, 3))
        dice = (2 * common + SMOOTH) / (probabilities.sum(dim=(2, 3)) + sizes + SMOOTH)
        lost = ((1 - dice) * (sizes > 0)).sum()
        return torch.stack([self.cross_entropy * pixels, self.dice * lost])

    def weights(self, batch: TrainBatch) -> torch.Tensor:
        """Return the number of pixels with a class, and that of (image, class of the image)."""
        targets = batch.targets.flatten(1)
        ordered = targets.sort(dim=1).values
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        pairs = (is_first & (ordered >= 0)).sum()
        return torch.stack([(targets >= 0).sum(), pairs]).float().clamp_min(TINY)


class SegmentationMetrics:
    """Confusion matrix over the pixels of a split.

    Args:
        classes: names of the classes.
    """

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self.sums: Mapping[str, torch.Tensor] = {
            "confusion": torch.zeros(len(classes) ** 2, dtype=torch.int64),
            "images": torch.zeros(1, dtype=torch.int64),
        }

    def update(self, scores: torch.Tensor, batch: TrainBatch) -> None:
        """Add the pixels of a batch that have a class."""
        num_classes = len(self._classes)
        counted = (batch.targets >= 0) & ~batch.replaced.view(-1, 1, 1)
        pairs = batch.targets[counted] * num_classes + scores.argmax(dim=1)[counted]
        self.sums["confusion"].add_(torch.bincount(pairs, minlength=num_classes**2).cpu())
        self.sums["images"].add_(counted.flatten(1).any(dim=1).sum().cpu())

    def compute(self, dist: DistributedContext, num_read: int) -> MetricValues:
        """Compute the metrics of all ranks: means over the classes that occur or are predicted."""
        side = len(self._classes)
        matrix = dist.all_reduce(self.sums["confusion"]).view(side, side).numpy().copy()
        num_images = int(dist.all_reduce(self.sums["images"]))
        values: dict[str, float | None] = dict.fromkeys(SegmentationTask.metric_names)
        if not matrix.sum():
            notes = dict.fromkeys(values, "no pixel with a class is left")
            return MetricValues(num_images, num_read - num_images, values, notes)
        shared = np.diag(matrix)
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - shared
        overlap = {
            name: shared[number] / union[number] if union[number] else None
            for number, name in enumerate(self._classes)
        }
        values["miou"] = float(np.mean([each for each in overlap.values() if each is not None]))
        values["pixel_accuracy"] = float(shared.sum() / matrix.sum())
        more = {
            "iou": {name: None if each is None else float(each) for name, each in overlap.items()},
            "confusion": matrix.tolist(),
        }
        return MetricValues(num_images, num_read - num_images, values, {}, more)


class SegmentationTask(Task):
    """A class for each pixel of the picture, from the index's masks.

    Args:
        index: index of the plan, with masks.
        classes: names of the values of masks in ascending order, without those of void.
        void: values of pixels without a class, beside 255.
        cross_entropy: weight of cross-entropy.
        dice: weight of the Dice loss.
    """

    metric_names = ("miou", "pixel_accuracy")

    def __init__(
        self,
        index: Index,
        *,
        classes: Sequence[str],
        void: Sequence[int] = (),
        cross_entropy: float = 1.0,
        dice: float = 1.0,
    ) -> None:
        self._masks = index.table["mask"]
        if self._masks.null_count == len(index):
            raise PlanError(
                "index: expected pictures with masks, got none; index with a mask for each, for example from a folder of masks"
            )
        self.classes = tuple(classes)
        self._criterion = DiceCrossEntropy(cross_entropy, dice)
        self._class_of = class_numbers(len(self.classes), void)

    def targets(self, batch: Batch) -> Targets:
        """Return the number of each pixel's class, int64 (N, H, W); -1 for void and in images without a mask.

        Raises:
            RunError: a mask has a value that the job does not name.
        """
        if batch.masks is None:
            raise RunError("expected batches with masks, got none; index the source again, with its masks")
        found = torch.from_numpy(self._class_of)[batch.masks.cpu().long()]
        wrong = (found == UNKNOWN).flatten(1).any(dim=1)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            value = int(batch.masks[row].cpu()[found[row] == UNKNOWN][0])
            raise RunError(
                f"masks: expected values of the {len(self.classes)} classes, void or {IGNORED}, got {value} in the mask of "
                f"{batch.keys[row]!r} at step {batch.step}; correct classes or num_classes, or add the value to void"
            )
        return Targets(found)

    def criterion(self, *, training: bool, like: torch.Tensor) -> Criterion:  # noqa: ARG002
        """Return the sum of cross-entropy and Dice loss, in evaluation too."""
        return self._criterion

    def running_metrics(self, num_rows: int | None = None) -> RunningMetrics:  # noqa: ARG002
        """Return an empty confusion matrix."""
        return SegmentationMetrics(self.classes)

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether each row has a mask."""
        return np.asarray(self._masks.is_valid().to_numpy(zero_copy_only=False))


def class_numbers(num_classes: int, void: Sequence[int]) -> np.ndarray:
    """Return the class of each value of a mask: int64 (256,), with ``VOID`` and ``UNKNOWN``."""
    values = [value for value in range(IGNORED) if value not in set(void)][:num_classes]
    found = np.full(IGNORED + 1, UNKNOWN, dtype=np.int64)
    found[values] = np.arange(len(values))
    found[[*void, IGNORED]] = VOID
    return found
