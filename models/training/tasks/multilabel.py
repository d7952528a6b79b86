"""Multi-label classification: any number of classes per image, binary cross-entropy, mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from ....pipeline.batch.batch import Batch
from ....pipeline.errors import PlanError, RunError
from ....pipeline.index.index import Index
from ..distributed.context import DistributedContext
from ..train_batch import Targets, TrainBatch
from .classification import absent_classes, check_every_class, check_num_classes
from .ranking import RankedScores, Ranking
from .task import TINY, Criterion, MetricValues, RunningMetrics, Task

HALF = 0.5
"""Probability from which on a class is predicted where no threshold is chosen."""


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Mean binary cross-entropy over all classes of labelled rows; mixed images contribute to both of their label sets."""

    positive_weights: torch.Tensor | None = None
    """Weights of the positive term, as in ``torch.nn.BCEWithLogitsLoss``: shape (classes,)."""
    label_smoothing: float = 0.0
    """Targets become ``t * (1 - s) + s / 2``."""
    in_double: bool = False
    """Compute in float64."""

    def totals(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return the sum over classes and labelled rows."""
        scores = scores.double() if self.in_double else scores
        loss = self._losses(scores, batch.targets)
        if batch.mixed_targets is not None and batch.mixed_weights is not None:
            mixed = self._losses(scores, batch.mixed_targets)
            loss = torch.lerp(loss, mixed, batch.mixed_weights.to(loss.dtype)[:, None])
        return loss.sum().view(1)

    def weights(self, batch: TrainBatch) -> torch.Tensor:
        """Return the number of classes times that of labelled rows."""
        counted = (batch.targets >= 0).float()
        if batch.mixed_targets is not None and batch.mixed_weights is not None:
            mixed = (batch.mixed_targets >= 0).float()
            counted = torch.lerp(counted, mixed, batch.mixed_weights.to(counted.dtype)[:, None])
        return counted.sum().clamp_min(TINY).view(1)

    def _losses(self, scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of each score, 0 where there is no target."""
        smoothed = targets.to(scores.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = None if self.positive_weights is None else self.positive_weights.to(scores.dtype)
        loss = functional.binary_cross_entropy_with_logits(
            scores, smoothed, pos_weight=weights, reduction="none"
        )
        return loss.masked_fill(targets < 0, 0.0)


@dataclass(frozen=True)
class MultilabelResult(MetricValues):
    """Metrics of multi-label classification, and thresholds for the best F1 of each class on this split."""

    classes: tuple[str, ...] = ()
    counts: np.ndarray | None = None
    """int64 (3, classes): true positives, false positives and false negatives at a probability of 0.5."""
    ranking: Ranking | None = None

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Probability from which on each class is best predicted by F1; 0.5 for classes that do not occur."""
        if self.ranking is None:
            return ()
        scores = [self.ranking.best_f1_threshold(number) for number in range(len(self.classes))]
        return tuple(HALF if one is None else float(1 / (1 + np.exp(-one))) for one in scores)

    def details(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:
        """Return average precision and F1 of each class, and macro F1 at thresholds that were chosen on another split."""
        assert self.counts is not None
        per_class: dict[str, dict[str, float | None]] = {}
        f1 = f1_scores(self.counts)
        for number, name in enumerate(self.classes):
            values = {"threshold": HALF, "f1": f1[number]}
            if self.ranking is not None:
                values["average_precision"] = self.ranking.average_precision(number)
                if thresholds:
                    at = logit(thresholds[number])
                    values |= {"threshold": thresholds[number], "f1": self.ranking.f1_from(number, at)}
            per_class[name] = values
        tuned = [each["f1"] for each in per_class.values() if each["f1"] is not None]
        found: dict[str, Any] = {"per_class": per_class}
        return {"f1_at_thresholds": float(np.mean(tuned)), **found} if thresholds and tuned else found


class MultilabelMetrics:
    """Hits and misses of each class at a probability of 0.5 and, if the split is evaluated, the scores for the average precision.

    Args:
        classes: names of the classes.
        num_rows: rows of the evaluated split; None leaves the average precision out.
    """

    def __init__(self, classes: tuple[str, ...], num_rows: int | None = None) -> None:
        self._classes = classes
        self.sums: Mapping[str, torch.Tensor] = {
            "counts": torch.zeros(3, len(classes), dtype=torch.int64),
            "images": torch.zeros(1, dtype=torch.int64),
        }
        self._ranked = None if num_rows is None else RankedScores(num_rows, len(classes))

    def update(self, scores: torch.Tensor, batch: TrainBatch) -> None:
        """Add the rows of a batch."""
        targets = batch.targets.masked_fill(batch.replaced[:, None], -1).cpu()
        scores = scores.double().cpu()
        predicted = scores >= 0
        hits = (predicted & (targets == 1), predicted & (targets == 0), ~predicted & (targets == 1))
        self.sums["counts"].add_(torch.stack([each.sum(dim=0) for each in hits]))
        self.sums["images"].add_((targets >= 0).all(dim=1).sum())
        if self._ranked is not None:
            self._ranked.update(scores, targets.to(torch.int8))

    def compute(self, dist: DistributedContext, num_read: int) -> MultilabelResult:
        """Compute the metrics of all ranks."""
        counts = dist.all_reduce(self.sums["counts"]).numpy().copy()
        num_images = int(dist.all_reduce(self.sums["images"]))
        ranking = None if self._ranked is None else self._ranked.gather(dist)
        f1 = [each for each in f1_scores(counts) if each is not None]
        values = {"map": None, "f1": float(np.mean(f1)) if f1 else None}
        notes = {} if num_images else dict.fromkeys(MultilabelTask.metric_names, "no labelled image is left")
        if ranking is not None and num_images:
            areas = [ranking.average_precision(number) for number in range(len(self._classes))]
            found = [area for area in areas if area is not None]
            values["map"] = float(np.mean(found)) if found else None
            notes = {} if found else dict.fromkeys(MultilabelTask.metric_names, "no class occurs")
        ignored = num_read - num_images
        return MultilabelResult(num_images, ignored, values, notes, {}, self._classes, counts, ranking)


def f1_scores(counts: np.ndarray) -> list[float | None]:
    """Compute the F1 of each class from true positives, false positives and false negatives; None if it does not occur."""
    hits, false, missed = counts.astype(np.float64)
    return [
        2 * h / (2 * h + f + m) if h + m else None
        for h, f, m in zip(hits.tolist(), false.tolist(), missed.tolist(), strict=True)
    ]


def logit(probability: float) -> float:
    """Return the score that belongs to a probability."""
    with np.errstate(divide="ignore"):
        return float(np.log(probability) - np.log1p(-probability))


class MultilabelTask(Task):
    """Any number of classes per image.

    Args:
        index: index of the plan, with sets of labels.
        train_rows: rows of the training split.
        positive_weights: ``none``, ``balanced`` (images without the class / images with it), or a weight for each class.
        label_smoothing: of the training loss.
    """

    metric_names = ("map", "f1")

    def __init__(
        self,
        index: Index,
        train_rows: np.ndarray,
        *,
        positive_weights: Literal["none", "balanced"] | Sequence[float] = "none",
        label_smoothing: float = 0.0,
    ) -> None:
        if not index.is_multi_label:
            raise PlanError(
                "index: expected images with sets of labels (column 'labels'), got one class per image; write job: classify, "
                "or index a table whose label cells hold several classes, such as 'red|shirt'"
            )
        check_num_classes(index)
        if not isinstance(positive_weights, str) and len(positive_weights) != len(index.classes):
            raise PlanError(
                f"positive_weights: expected a weight for each of the {len(index.classes)} classes "
                f"({', '.join(index.classes)}), got {len(positive_weights)}; write none, balanced or as many"
            )
        self.classes = index.classes
        self._sets = index.table["labels"]
        self._train_rows = train_rows
        self._positive_weights = positive_weights
        self._label_smoothing = label_smoothing

    def targets(self, batch: Batch) -> Targets:
        """Return the label sets, and those of mixed images."""
        if batch.label_sets is None:
            raise RunError("expected batches with sets of labels, got none; index the source again")
        return Targets(batch.label_sets, batch.mixed_label_sets)

    def criterion(self, *, training: bool, like: torch.Tensor) -> Criterion:
        """Return binary cross-entropy; without weights and smoothing, and in float64, in evaluation."""
        if not training:
            return BinaryCrossEntropy(in_double=True)
        if self._positive_weights == "none":
            return BinaryCrossEntropy(label_smoothing=self._label_smoothing)
        weights = torch.tensor(
            self._positive_weights if not isinstance(self._positive_weights, str) else self._balance()
        )
        return BinaryCrossEntropy(weights.to(like), self._label_smoothing)

    def running_metrics(self, num_rows: int | None = None) -> RunningMetrics:
        """Return empty counts, with scores in evaluation."""
        return MultilabelMetrics(self.classes, num_rows)

    @property
    def is_labelled(self) -> np.ndarray:
        """Whether each row has a set of labels, which may be empty."""
        return np.asarray(self._sets.is_valid().to_numpy(zero_copy_only=False))

    def check_training(self, split: str) -> None:
        """Check that every class has training images.

        Raises:
            PlanError: one has none.
        """
        check_every_class(self._counts(self._train_rows), self.classes, split)

    def validation_notes(self, rows: np.ndarray, split: str, monitors: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return the classes that are absent."""
        return absent_classes(self.classes, np.flatnonzero(self._counts(rows)).tolist(), split)

    def _counts(self, rows: np.ndarray) -> np.ndarray:
        """Count the images of each class."""
        flat = self._sets.take(rows).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.bincount(flat.astype(np.int64), minlength=len(self.classes))

    def _balance(self) -> list[float]:
        having = self._counts(self._train_rows)
        num_labelled = int(self.is_labelled[self._train_rows].sum())
        return [float(each) for each in (num_labelled - having) / np.maximum(having, 1)]
