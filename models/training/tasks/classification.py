"""Classification: one class per image, weighted cross-entropy, accuracy and area under the ROC curve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ....pipeline.batch.batch import Batch
from ....pipeline.errors import PlanError
from ....pipeline.index.index import Index
from ....pipeline.text import first_few
from ..distributed.context import DistributedContext
from ..metrics import Metrics, accuracies, log_odds
from ..train_batch import Targets, TrainBatch, label_targets
from .ranking import RankedScores, Ranking
from .task import TINY, Criterion, RunningMetrics, Task


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy with class weights and label smoothing; mixed images contribute to both of their labels."""

    class_weights: torch.Tensor | None = None
    """Floats of the parameters' dtype, on their device, shape (classes,)."""
    label_smoothing: float = 0.0
    in_double: bool = False
    """Compute in float64."""

    def totals(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return the weighted sum over labelled rows, as in ``torch.nn.CrossEntropyLoss``."""
        loss = self._losses(scores, batch.targets)
        if batch.mixed_targets is not None and batch.mixed_weights is not None:
            mixed = self._losses(scores, batch.mixed_targets)
            loss = torch.lerp(loss, mixed, batch.mixed_weights.to(loss.dtype))
        return loss.sum().view(1)

    def weights(self, batch: TrainBatch) -> torch.Tensor:
        """Return the summed weights of labelled rows."""
        weight = self._weights(batch.targets)
        if batch.mixed_targets is not None and batch.mixed_weights is not None:
            mixed = self._weights(batch.mixed_targets)
            weight = torch.lerp(weight, mixed, batch.mixed_weights.to(weight.dtype))
        return weight.sum().clamp_min(TINY).view(1)

    def _losses(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            scores.double() if self.in_double else scores,
            labels,
            None if self.class_weights is None else self.class_weights.to(scores.dtype),
            reduction="none",
            ignore_index=-1,
            label_smoothing=self.label_smoothing,
        )

    def _weights(self, labels: torch.Tensor) -> torch.Tensor:
        labelled = (labels >= 0).to(torch.float32 if self.class_weights is None else self.class_weights.dtype)
        return labelled if self.class_weights is None else labelled * self.class_weights[labels.clamp_min(0)]


class ClassificationMetrics:
    """Confusion matrix of a split and, if it is evaluated, the scores for the area under the ROC curve.

    Args:
        num_classes: number of classes.
        num_rows: rows of the evaluated split; None leaves the area out.
    """

    def __init__(self, num_classes: int, num_rows: int | None = None) -> None:
        self._num_classes = num_classes
        self.sums: Mapping[str, torch.Tensor] = {"confusion": torch.zeros(num_classes**2, dtype=torch.int64)}
        self._ranked = None if num_rows is None else RankedScores(num_rows, num_classes)

    def update(self, scores: torch.Tensor, batch: TrainBatch) -> None:
        """Add the rows of a batch."""
        counted = (batch.targets >= 0) & ~batch.replaced
        pairs = batch.targets[counted] * self._num_classes + scores[counted].argmax(dim=1)
        self.sums["confusion"].add_(torch.bincount(pairs.cpu(), minlength=self._num_classes**2))
        if self._ranked is not None:
            labels = batch.targets.masked_fill(~counted, -1).cpu()
            truth = (labels[:, None] == torch.arange(self._num_classes)).to(torch.int8)
            truth[labels < 0] = -1
            odds = log_odds(scores.double().cpu().numpy())
            self._ranked.update(torch.from_numpy(odds), truth)

    def compute(self, dist: DistributedContext, num_read: int) -> Metrics:
        """Compute the metrics of all ranks."""
        matrix = dist.all_reduce(self.sums["confusion"]).view(self._num_classes, -1).numpy().copy()
        num_images = int(matrix.sum())
        area, note = None, ""
        if self._ranked is not None:
            area, note = area_under_roc(self._ranked.gather(dist), matrix.sum(axis=1))
        notes = {"auroc": note} if note else {}
        if self._ranked is not None and not num_images:
            notes = dict.fromkeys(ClassificationTask.metric_names, "no labelled image is left")
        return Metrics(num_images, num_read - num_images, *accuracies(matrix), area, matrix, notes)


def area_under_roc(ranking: Ranking, counts: np.ndarray) -> tuple[float | None, str]:
    """Return the area under the ROC curve and an empty string, or None and the reason.

    Two classes: of the score of class 1. More: macro-averaged one-vs-rest over the classes that occur.

    Args:
        ranking: scores of the split.
        counts: images of each class.
    """
    present = np.flatnonzero(counts)
    if len(present) < 2:
        return None, f"only class {int(present[0])} is present" if len(present) else "no labelled image"
    areas = [ranking.area_under_roc(number) for number in ([1] if len(counts) == 2 else present.tolist())]
    return float(np.mean([area for area in areas if area is not None])), ""


class ClassificationTask(Task):
    """One class per image.

    Args:
        index: index of the plan.
        train_rows: rows of the training split.
        balanced: weight each class by images / (classes * images of the class).
        label_smoothing: of the training loss.
    """

    metric_names = ("accuracy", "balanced_accuracy", "auroc")

    def __init__(
        self, index: Index, train_rows: np.ndarray, *, balanced: bool = False, label_smoothing: float = 0.0
    ) -> None:
        if index.is_multi_label:
            raise PlanError(
                "index: expected one class per image, got images with several (column 'labels'); write job: multilabel, or "
                "index with one label per image"
            )
        check_num_classes(index)
        self.classes = index.classes
        self._labels = index.table["label"].to_numpy()
        self._train_rows = train_rows
        self._balanced = balanced
        self._label_smoothing = label_smoothing

    def targets(self, batch: Batch) -> Targets:
        """Return the labels, and those of mixed images."""
        return label_targets(batch)

    def criterion(self, *, training: bool, like: torch.Tensor) -> Criterion:
        """Return cross-entropy; without weights and smoothing, and in float64, in evaluation."""
        if not training:
            return CrossEntropy(in_double=True)
        if not self._balanced:
            return CrossEntropy(label_smoothing=self._label_smoothing)
        weights = balanced_class_weights(self._labels[self._train_rows], len(self.classes))
        return CrossEntropy(weights.to(like), self._label_smoothing)

    def running_metrics(self, num_rows: int | None = None) -> RunningMetrics:
        """Return an empty confusion matrix, with scores in evaluation."""
        return ClassificationMetrics(len(self.classes), num_rows)

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether each row has a class."""
        return np.asarray(self._labels >= 0)

    def check_training(self, split: str) -> None:
        """Check that every class has training images.

        Raises:
            PlanError: one has none.
        """
        labels = self._labels[self._train_rows]
        check_every_class(np.bincount(labels[labels >= 0], minlength=len(self.classes)), self.classes, split)

    def validation_notes(self, rows: np.ndarray, split: str, monitors: Mapping[str, str]) -> tuple[str, ...]:
        """Return the classes that are absent, and whether the area under the ROC curve is undefined."""
        present = np.unique(self._labels[rows][self._labels[rows] >= 0]).tolist()
        notes = absent_classes(self.classes, present, split)
        undefined = [key for key, metric in monitors.items() if metric == "auroc"]
        if undefined and len(present) < 2:
            one = f"AUROC is undefined with one class in {split!r}: {' and '.join(undefined)} use the validation loss"
            notes = (*notes, one)
        return notes


def check_num_classes(index: Index) -> None:
    """Check that an index has at least two classes.

    Raises:
        PlanError: it has fewer.
    """
    if len(index.classes) < 2:
        raise PlanError(
            f"classes: expected at least two classes, got {'none' if not index.classes else 'one'} "
            f"({', '.join(index.classes) or 'no labels'}); index a folder per class, or a table with a label column"
        )


def check_every_class(counts: np.ndarray, classes: tuple[str, ...], split: str) -> None:
    """Check that every class has training images.

    Raises:
        PlanError: one has none.
    """
    missing = [name for name, count in zip(classes, counts, strict=True) if not count]
    if missing:
        raise PlanError(
            f"train_split: expected images of every class in {split!r}, got none of {', '.join(map(repr, missing))}; "
            "add some, or index without them"
        )


def absent_classes(classes: tuple[str, ...], present: list[int], split: str) -> tuple[str, ...]:
    """Return a note of the classes without an image in a split; empty if there are none."""
    absent = [repr(name) for number, name in enumerate(classes) if number not in set(present)]
    if not absent:
        return ()
    return (f"no image of {first_few(absent, 5)} in {split!r}: these classes are not validated",)


def balanced_class_weights(labels: np.ndarray, num_classes: int) -> torch.Tensor:
    """Compute class weights, images / (classes * images of the class): float64, shape (classes,)."""
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return torch.from_numpy(counts.sum() / (num_classes * counts))
