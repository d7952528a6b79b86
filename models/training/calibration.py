"""Calibration of classifiers: expected calibration error, reliability diagram and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .checkpoint_values import MIN_TEMPERATURE

NUM_BINS = 15
"""Confidence bins, as in Guo et al. (ICML 2017)."""
MIN_IMAGES = 10
"""With fewer labelled images no temperature is fitted."""
SEARCH_STEPS = 40
GOLDEN = (5**0.5 - 1) / 2
"""Golden section: the search interval shrinks by it in each step."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Images of similar confidence."""

    low: float
    high: float
    num_images: int
    confidence: float
    """Mean probability of the predicted class."""
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far confidences are from accuracies."""

    ece: float
    """Expected calibration error with bins of equal width (Naeini et al., AAAI 2015)."""
    adaptive_ece: float
    """The same with bins of equally many images."""
    bins: tuple[ReliabilityBin, ...]
    """Non-empty bins of equal width."""

    def as_dict(self) -> dict[str, Any]:
        """Return the values as JSON types."""
        return {
            "ece": self.ece,
            "adaptive_ece": self.adaptive_ece,
            "num_bins": NUM_BINS,
            "bins": [
                {
                    "from": one.low,
                    "to": one.high,
                    "num_images": one.num_images,
                    "confidence": one.confidence,
                    "accuracy": one.accuracy,
                }
                for one in self.bins
            ],
        }


def compute_calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration | None:
    """Compare confidence and accuracy of labelled images; None without any.

    Args:
        probabilities: shape (N, classes).
        labels: integers, shape (N,); rows with -1 are excluded.
    """
    known = labels >= 0
    confidences = probabilities[known].max(axis=1, initial=0).astype(np.float64)
    right = probabilities[known].argmax(axis=1) == labels[known]
    if not len(right):
        return None
    equal = np.minimum((confidences * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    bins = tuple(
        ReliabilityBin(
            number / NUM_BINS,
            (number + 1) / NUM_BINS,
            int(chosen.sum()),
            float(confidences[chosen].mean()),
            float(right[chosen].mean()),
        )
        for number in range(NUM_BINS)
        if (chosen := equal == number).any()
    )
    order = np.argsort(confidences, kind="stable")
    gaps = [
        len(chosen) * abs(confidences[chosen].mean() - right[chosen].mean())
        for chosen in np.array_split(order, NUM_BINS)
        if len(chosen)
    ]
    ece = sum(one.num_images * abs(one.confidence - one.accuracy) for one in bins) / len(right)
    return Calibration(float(ece), float(sum(gaps) / len(right)), bins)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Fit the temperature that minimises cross-entropy on a validation split (Guo et al., ICML 2017).

    Args:
        logits: shape (N, classes).
        labels: integers, shape (N,); rows with -1 are excluded.

    Returns:
        The divisor of the logits; 1 if fewer than 10 images or two classes have labels, or if all are classified
        correctly, which any smaller temperature would fit better.
    """
    known = labels >= 0
    scores, truth = logits[known].astype(np.float64), labels[known]
    if len(truth) < MIN_IMAGES or len(np.unique(truth)) < 2 or (scores.argmax(axis=1) == truth).all():
        return 1.0
    scores -= scores.max(axis=1, keepdims=True)
    own = scores[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        with np.errstate(under="ignore"):
            return float(np.mean(np.log(np.exp(scores * inverse).sum(axis=1)) - own * inverse))

    low, high = float(np.log(MIN_TEMPERATURE)), float(-np.log(MIN_TEMPERATURE))
    for _ in range(SEARCH_STEPS):  # the loss has one minimum, as it is convex in the inverse temperature
        first, second = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return float(np.exp((low + high) / 2))
