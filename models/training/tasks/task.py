"""The contract of a training task: what loop, checkpoints and ranks know of classification, segmentation or yours.

A task is one small class. It says what the index has to hold, what a batch's targets are, which loss compares them with the
model's outputs, and which metrics are computed. Losses and running metrics are sums over rows, so that ranks and a resumed
run get what one uninterrupted process gets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from ....pipeline.batch.batch import Batch
from ..distributed.context import DistributedContext
from ..train_batch import Targets, TrainBatch, fill_ignored

TINY = torch.finfo(torch.float32).tiny


class Criterion(Protocol):
    """A loss of one or more terms: the sum of ``totals / weights``, both summed over the rows of all ranks first."""

    def totals(self, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
        """Return the sum of each term over the rows of a batch: shape (terms,)."""
        ...

    def weights(self, batch: TrainBatch) -> torch.Tensor:
        """Return the normaliser of each term, from the targets alone: shape (terms,), never 0."""
        ...


def mean_loss(criterion: Criterion, scores: torch.Tensor, batch: TrainBatch) -> torch.Tensor:
    """Return the loss of one batch on its own; 0 if it has no targets."""
    return (criterion.totals(scores, batch) / criterion.weights(batch)).sum()


class MetricResult(Protocol):
    """Metrics of a split."""

    @property
    def num_images(self) -> int:
        """Measured images, without replaced ones and those without a target."""
        ...

    @property
    def notes(self) -> Mapping[str, str]:
        """Why a metric cannot be computed, by its name."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return ``images``, ``ignored``, the metrics and, if there are any, ``notes`` as JSON types."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Probabilities from which on each output is predicted, chosen on this split; empty if the task has none."""
        ...

    def details(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:
        """Return further results, such as a confusion matrix, as JSON types.

        Args:
            thresholds: those that were chosen on the validation split.
        """
        ...


@dataclass(frozen=True)
class MetricValues:
    """Metrics by name. A value that cannot be computed is None, with the reason in ``notes``."""

    num_images: int
    num_ignored: int
    values: Mapping[str, float | None]
    notes: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        plain = {"images": self.num_images, "ignored": self.num_ignored, **self.values}
        return {**plain, "notes": dict(self.notes)} if self.notes else plain

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return none."""
        return ()

    def details(self, thresholds: Sequence[float] = ()) -> dict[str, Any]:  # noqa: ARG002
        """Return ``more``."""
        return dict(self.more)


class RunningMetrics(Protocol):
    """Metrics of a split, updated batch by batch."""

    @property
    def sums(self) -> Mapping[str, torch.Tensor]:
        """Tensors on the CPU that are summed over ranks and kept in checkpoints; ``update`` changes them in place."""
        ...

    def update(self, scores: torch.Tensor, batch: TrainBatch) -> None:
        """Add the rows of a batch that are neither replaced nor without a target; a local operation."""
        ...

    def compute(self, dist: DistributedContext, num_read: int) -> MetricResult:
        """Compute the metrics of all ranks; a collective operation that changes nothing.

        Args:
            dist: the ranks.
            num_read: images read by all ranks, measured or not.
        """
        ...


class Task(ABC):
    """A training task on the index of a plan.

    The class of a job file's ``task: module:Class`` is called with the index, the row numbers of the training split, and the
    job's ``options`` as keyword arguments; it raises PlanError if the index does not fit.
    """

    classes: tuple[str, ...]
    """Names of the model's outputs, one for each."""
    metric_names: tuple[str, ...] = ()
    """Metrics that are shown after each epoch and can be monitored, beside the loss. Bigger is better."""

    @abstractmethod
    def targets(self, batch: Batch) -> Targets:
        """Return the targets of a batch: a row for each image, -1 or NaN where there is none."""

    @abstractmethod
    def criterion(self, *, training: bool, like: torch.Tensor) -> Criterion:
        """Return the loss that is minimised in training, or the one that is reported for evaluation.

        Args:
            training: whether the model is trained on it.
            like: a tensor with dtype and device of the model's parameters.
        """

    @abstractmethod
    def running_metrics(self, num_rows: int | None = None) -> RunningMetrics:
        """Return empty metrics.

        Args:
            num_rows: rows of the split that is evaluated; None in training, where metrics that need all scores are left out.
        """

    @property
    def is_labelled(self) -> np.ndarray | None:
        """bool, a value for each row of the index: whether it has a target; None if all have."""
        return None

    def check_training(self, split: str) -> None:  # noqa: B027 - a task may have nothing to check
        """Check that the training split can be learned from.

        Args:
            split: its name.

        Raises:
            PlanError: it cannot.
        """

    def validation_notes(self, rows: np.ndarray, split: str, monitors: Mapping[str, str]) -> tuple[str, ...]:  # noqa: ARG002
        """Return limitations of the validation split.

        Args:
            rows: its row numbers in the index.
            split: its name.
            monitors: the metric that each key of the job monitors.
        """
        return ()


def measured(batch: TrainBatch) -> TrainBatch:
    """Return a batch for evaluation: replaced rows have no target, and nothing is mixed."""
    return replace(
        batch,
        targets=fill_ignored(batch.targets, batch.replaced),
        mixed_targets=None,
        mixed_weights=None,
    )
