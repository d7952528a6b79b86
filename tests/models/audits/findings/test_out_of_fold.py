"""Out-of-fold probabilities in blocks equal those of a plain fit of each fold, and use the rows asked for only."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.findings.out_of_fold import NUM_FOLDS, FoldedFeatures, assign_folds, out_of_fold
from sklearn.covariance import ledoit_wolf


def plain(features: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Fit a discriminant on each fold with scikit-learn's covariance."""
    found = np.empty((len(labels), labels.max() + 1))
    for fold in range(NUM_FOLDS):
        fitted = folds != fold
        sizes = np.bincount(labels[fitted])
        means = np.stack([features[fitted & (labels == number)].mean(axis=0) for number in range(len(sizes))])
        covariance, _ = ledoit_wolf(features[fitted] - means[labels[fitted]], assume_centered=True)
        weights = np.linalg.solve(covariance, means.T)
        scores = (
            features[~fitted] @ weights + np.log(sizes / sizes.sum()) - 0.5 * (means * weights.T).sum(axis=1)
        )
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        found[~fitted] = scores / scores.sum(axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("block", [7, 1000])
def test_probabilities_are_those_of_scikit_learns_covariance_whatever_the_block(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr("lightwell.models.audits.findings.out_of_fold.BLOCK_ROWS", block)
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    features = (3 + generator.normal(size=(120, 30)) + np.eye(30)[labels]).astype(np.float32)
    others = np.full((240, 30), np.nan, np.float32)
    rows = np.arange(0, 240, 2)
    others[rows] = features
    folds = assign_folds(labels, generator)
    found = out_of_fold(FoldedFeatures.of(others, rows, folds), labels)
    np.testing.assert_allclose(found, plain(features.astype(np.float64), labels, folds), atol=1e-6)
