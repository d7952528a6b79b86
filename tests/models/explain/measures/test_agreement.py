"""Rank correlation against SciPy, overlap of the strongest cells against sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from lightwell.models.explain.measures.agreement import rank_correlations, top_overlaps
from scipy.stats import spearmanr


def test_rank_correlation_equals_scipy_with_ties_and_is_null_without_ranks() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 4, (5, 3, 4)).astype(float), rng.normal(size=(5, 3, 4))
    first[3], second[4, 0, 0] = 1.0, math.nan
    found = rank_correlations(first, second)
    for row in range(3):
        assert found[row] == pytest.approx(spearmanr(first[row].ravel(), second[row].ravel()).statistic)
    assert np.isnan(found[3:]).all()
    assert rank_correlations(second[:3], second[:3] * 7)[0] == pytest.approx(1)


def test_overlap_counts_shared_cells_of_the_top_tenth() -> None:
    first = np.zeros((2, 5, 4))
    first[:, 0, :2] = [[2, 1], [2, 1]]
    second = np.zeros((2, 5, 4))
    second[0, 0, 1], second[0, 4, 0] = 5, 4
    assert top_overlaps(first, second)[0] == 0.5
    assert np.isnan(top_overlaps(first, second)[1])
