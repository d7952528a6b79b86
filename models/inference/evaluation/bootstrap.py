"""Bootstrap intervals of metrics over images, with a seed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ....pipeline.rng import derive_seed, numpy_generator

LEVEL = 0.95
CHUNK_VALUES = 2_000_000
"""Weights of resampled images that are held at once."""
MAX_RANKED_VALUES = 200_000_000
"""Images times classes times samples above which intervals of AUROC and average precision are left out."""

Interval = list[float] | None


def bootstrap_intervals(
    scores: np.ndarray, labels: np.ndarray, *, num_samples: int, seed: int
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals (95 %) of accuracy, balanced accuracy and AUROC.

    Images are drawn with replacement. Each metric is that of ``metrics.compute_metrics``; samples in which it is undefined
    are left out.

    Args:
        scores: float, shape (N, classes); ranks images within each class, as ``log_odds`` do.
        labels: integers, shape (N,); rows with -1 are excluded.
        num_samples: bootstrap samples; 0 for no intervals.
        seed: of the samples.

    Returns:
        Lower and upper limit by metric; None without labelled images or samples, or if too large to compute.
    """
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    names = ("accuracy", "balanced_accuracy", "auroc")
    if not len(labels) or not num_samples:
        return dict.fromkeys(names)
    right = (scores.argmax(axis=1) == labels).astype(np.float64)
    present = np.unique(labels)
    members = (labels[:, None] == present).astype(np.float64)
    positives = [1] if scores.shape[1] == 2 else present.tolist()
    ranked = len(present) > 1 and len(labels) * len(positives) * num_samples <= MAX_RANKED_VALUES
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for weights in bootstrap_samples(len(labels), num_samples, seed):
        found["accuracy"].append(weights @ right / len(labels))
        sizes = weights @ members
        with np.errstate(invalid="ignore"):
            recalls = weights @ (members * right[:, None]) / sizes
        found["balanced_accuracy"].append(row_means(recalls))
        if ranked:
            areas = [_areas(weights, scores[:, number], labels == number) for number in positives]
            found["auroc"].append(row_means(np.stack(areas, axis=1)))
    return {
        name: percentile_interval(np.concatenate(values)) if values else None
        for name, values in found.items()
    }


def bootstrap_samples(num_images: int, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each image is drawn, float64, shape (samples, images), in chunks."""
    generator = numpy_generator(derive_seed("bootstrap", seed, 0, ""))
    size = max(1, CHUNK_VALUES // num_images)
    for start in range(0, num_samples, size):
        drawn = generator.integers(0, num_images, (min(size, num_samples - start), num_images))
        yield np.stack([np.bincount(row, minlength=num_images) for row in drawn]).astype(np.float64)


def _areas(weights: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each weighted sample; NaN where a class is absent."""
    order = np.argsort(scores, kind="stable")
    weights, positive, scores = weights[:, order], positive[order], scores[order]
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of groups of equal scores
    negatives = np.add.reduceat(np.where(positive, 0.0, weights), starts, axis=1)
    hits = np.add.reduceat(np.where(positive, weights, 0.0), starts, axis=1)
    below = np.cumsum(negatives, axis=1) - negatives
    pairs = hits.sum(axis=1) * negatives.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((hits * (below + negatives / 2)).sum(axis=1) / pairs)


def row_means(values: np.ndarray) -> np.ndarray:
    """Return the mean of each row without NaN; NaN for rows without values."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1))


def percentile_interval(values: np.ndarray) -> Interval:
    """Return the 95 % interval of a metric's samples; None if it is defined in none of them."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    tail = (1 - LEVEL) / 2
    return [float(limit) for limit in np.quantile(values, (tail, 1 - tail))]
