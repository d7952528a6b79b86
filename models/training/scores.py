"""Logits of an evaluated split, recorded beside its metrics for calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...pipeline.batch.batch import Batch
from .calibration import compute_calibration, fit_temperature
from .distributed.context import DistributedContext
from .tasks.classification import ClassificationTask
from .tasks.task import Criterion, MetricResult, RunningMetrics, Task
from .train_batch import Targets, TrainBatch, padding_mask

MAX_SCORES = 20_000_000
"""Images times classes above which nothing is recorded, as it would take too much memory; there is no calibration then."""


@dataclass(frozen=True)
class SplitScores:
    """Logits and labels of a whole split."""

    logits: np.ndarray
    """float32, shape (N, classes)."""
    labels: np.ndarray
    """int64, shape (N,); -1 for rows that are not measured."""

    def fit_temperature(self) -> float:
        """Return the temperature that calibrates the probabilities, to six digits; 1 if none can be fitted."""
        return float(f"{fit_temperature(self.logits, self.labels):.6g}")

    def calibration(self, temperature: float) -> dict[str, Any] | None:
        """Return the calibration of probabilities at a temperature; None without labelled images."""
        scaled = torch.from_numpy(self.logits).double() / temperature
        found = compute_calibration(scaled.softmax(dim=1).numpy(), self.labels)
        return None if found is None else found.as_dict()


class ScoreRecorder(Task):
    """A task that also records the logits of the split that is evaluated, if it is a classification.

    Args:
        task: computes loss and metrics.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.classes = task.classes
        self.metric_names = task.metric_names
        self._recorded: _RecordingMetrics | None = None

    def targets(self, batch: Batch) -> Targets:
        """Return the targets of the task."""
        return self._task.targets(batch)

    def criterion(self, *, training: bool, like: torch.Tensor) -> Criterion:
        """Return the loss of the task."""
        return self._task.criterion(training=training, like=like)

    def running_metrics(self, num_rows: int | None = None) -> RunningMetrics:
        """Return empty metrics of the task."""
        metrics = self._task.running_metrics(num_rows)
        self._recorded = None
        if not isinstance(self._task, ClassificationTask) or not num_rows:
            return metrics
        if num_rows * len(self.classes) > MAX_SCORES:
            return metrics
        self._recorded = _RecordingMetrics(metrics, len(self.classes))
        return self._recorded

    def gather(self, dist: DistributedContext) -> SplitScores | None:
        """Return the scores of all ranks; None if nothing was recorded. A collective operation."""
        return None if self._recorded is None else self._recorded.gather(dist)


class _RecordingMetrics:
    """Metrics that also record the logits; every rank has equally many rows, padding included."""

    def __init__(self, metrics: RunningMetrics, num_classes: int) -> None:
        self._metrics = metrics
        self.sums: Mapping[str, torch.Tensor] = metrics.sums
        self._logits = [torch.zeros(0, num_classes)]
        self._labels = [torch.zeros(0, dtype=torch.int64)]

    def update(self, scores: torch.Tensor, batch: TrainBatch) -> None:
        """Record the rows of a batch, and add them to the metrics."""
        self._metrics.update(scores, batch)
        left_out = batch.replaced | padding_mask(batch)
        self._logits.append(scores.float().cpu())
        self._labels.append(batch.targets.masked_fill(left_out, -1).cpu())

    def compute(self, dist: DistributedContext, num_read: int) -> MetricResult:
        """Compute the metrics."""
        return self._metrics.compute(dist, num_read)

    def gather(self, dist: DistributedContext) -> SplitScores:
        logits, labels = torch.cat(self._logits), torch.cat(self._labels)
        if dist.num_ranks > 1:
            logits, labels = dist.all_gather(logits), dist.all_gather(labels)
        return SplitScores(logits.numpy(), labels.numpy())
