"""Probabilities without an image's own label: of discriminants in blocks as of a plain fit, of neighbours, and calibrated."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.findings import neighbour_cosines
from lightwell.models.audits.findings.label_noise import calibrated
from lightwell.models.audits.findings.neighbour_votes import neighbour_probabilities
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


def test_neighbours_vote_without_the_image_itself_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    features = np.repeat(np.eye(2), 15, axis=0) + 0.1 * generator.normal(size=(30, 2))
    labels = np.repeat([0, 1], 15)
    labels[3] = 1
    monkeypatch.setattr(neighbour_cosines, "BLOCK_ROWS", 4)
    found = neighbour_probabilities(features, np.arange(30), labels, generator)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert found[3, 0] == pytest.approx((10 + 0.1) / 10.2)
    monkeypatch.setattr(neighbour_cosines, "MAX_REFERENCES", 20)
    assert (
        neighbour_probabilities(features, np.arange(30), labels, generator).argmax(axis=1) == labels
    ).mean() > 0.9


def test_calibration_takes_back_certainty_that_the_labels_do_not_bear_out() -> None:
    generator = np.random.default_rng(0)
    true = np.full((4000, 2), (0.7, 0.3))
    labels = (generator.random(4000) < 0.3).astype(np.int64)
    certain = true**6 / (true**6).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(calibrated(certain, labels), true, atol=0.03)
    np.testing.assert_allclose(calibrated(true, labels), true, atol=0.03)
