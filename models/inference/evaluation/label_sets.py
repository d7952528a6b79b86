"""Evaluation of any number of classes per image: average precision, and F1 at the checkpoint's thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ...training.distributed.context import DistributedContext
from ...training.tasks.multilabel import BinaryCrossEntropy, MultilabelMetrics, f1_scores
from ...training.tasks.task import mean_loss
from ...training.train_batch import TrainBatch
from ..table import ScoreTable
from .bootstrap import MAX_RANKED_VALUES, Interval, bootstrap_samples, percentile_interval, row_means


def label_sets_result(table: ScoreTable, truth: np.ndarray, *, num_samples: int, seed: int) -> dict[str, Any]:
    """Return the metrics as JSON types; those of the training for the same scores.

    Args:
        table: scores of the split.
        truth: int8, shape (N, classes): 1 has the class, 0 has not, -1 is not known; at least one image is labelled.
        num_samples: bootstrap samples of the intervals.
        seed: of the bootstrap.
    """
    evaluated = np.flatnonzero((truth >= 0).any(axis=0))
    truth = truth[:, evaluated]
    names = tuple(table.outputs.classes[number] for number in evaluated)
    logits = table.logits[:, evaluated]
    predicted = table.outputs.chosen(table.probabilities)[:, evaluated]
    batch = TrainBatch(
        torch.empty(len(truth), 0), torch.from_numpy(truth), torch.zeros(len(truth), dtype=torch.bool)
    )
    running = MultilabelMetrics(names, len(truth))
    running.update(torch.from_numpy(logits), batch)
    metrics = running.compute(DistributedContext(), len(truth))
    assert metrics.ranking is not None
    counts = np.stack([_hits(predicted, truth), _hits(predicted, 1 - truth), _hits(~predicted, truth)])
    f1 = f1_scores(counts)
    found = [one for one in f1 if one is not None]
    areas = [metrics.ranking.average_precision(number) for number in range(len(names))]
    thresholds = [table.outputs.thresholds[number] for number in evaluated]
    intervals, by_class = _intervals(logits, truth, predicted, num_samples=num_samples, seed=seed)
    return {
        "loss": float(mean_loss(BinaryCrossEntropy(in_double=True), torch.from_numpy(logits), batch)),
        **metrics.as_dict(),
        "f1_at_thresholds": float(np.mean(found)) if found else None,
        "intervals": intervals,
        "per_class": [
            {
                "class": name,
                "images": int((truth[:, number] == 1).sum()),
                "predicted": int((predicted[:, number] & (truth[:, number] >= 0)).sum()),
                "average_precision": areas[number],
                "interval": by_class[number],
                "threshold": thresholds[number],
                "f1": f1[number],
            }
            for number, name in enumerate(names)
        ],
    }


def _hits(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count the images of each class that are predicted and have it."""
    return np.asarray((predicted & (truth == 1)).sum(axis=0))


def _intervals(
    logits: np.ndarray, truth: np.ndarray, predicted: np.ndarray, *, num_samples: int, seed: int
) -> tuple[dict[str, Interval], list[Interval]]:
    """Return the intervals of the macro-averaged metrics, and those of each class's average precision."""
    labelled = (truth >= 0).any(axis=1)
    logits, truth, predicted = logits[labelled], truth[labelled], predicted[labelled]
    num_images, num_classes = truth.shape
    decisions = {"f1": logits >= 0, "f1_at_thresholds": predicted}
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("map", *decisions)}
    areas: list[np.ndarray] = []
    ranked = num_images * num_classes * num_samples <= MAX_RANKED_VALUES
    having = (truth == 1).astype(np.float64)
    for weights in bootstrap_samples(num_images, num_samples, seed):
        positives = weights @ having
        for name, decided in decisions.items():
            with np.errstate(invalid="ignore"):
                f1 = 2 * (weights @ (decided * having)) / (weights @ (decided & (truth >= 0)) + positives)
            found[name].append(row_means(np.where(positives > 0, f1, np.nan)))
        if ranked:
            chunk = [
                average_precisions(weights, logits[:, number], truth[:, number])
                for number in range(num_classes)
            ]
            areas.append(np.stack(chunk, axis=1))
            found["map"].append(row_means(areas[-1]))
    intervals = {
        name: percentile_interval(np.concatenate(values)) if values else None
        for name, values in found.items()
    }
    columns = np.concatenate(areas).T if areas else [np.empty(0)] * num_classes
    return intervals, [percentile_interval(column) for column in columns]


def average_precisions(weights: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the average precision of each weighted sample, as in scikit-learn; NaN without an image of the class.

    Args:
        weights: float64, shape (samples, N).
        scores: shape (N,).
        truth: shape (N,): 1, 0, or -1 for images that do not count.
    """
    counted = np.flatnonzero(truth >= 0)
    order = counted[np.argsort(-scores[counted], kind="stable")]
    weights, truth, scores = weights[:, order], truth[order], scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of groups of equal scores
    having = np.add.reduceat(np.where(truth == 1, weights, 0.0), starts, axis=1)
    found = np.cumsum(np.add.reduceat(weights, starts, axis=1), axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(having > 0, np.cumsum(having, axis=1) / found, 0.0)
        return np.asarray((having * precision).sum(axis=1) / having.sum(axis=1))
