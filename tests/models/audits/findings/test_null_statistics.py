"""P-values, q-values and intervals, against slow replicas, scipy and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lightwell.models.audits.findings.fdr import q_values
from lightwell.models.audits.findings.intervals import bootstrap_difference, bootstrap_mean, wilson
from lightwell.models.audits.findings.nulls import (
    add_one_p_values,
    class_means,
    count_p_values,
    permuted_class_means,
)
from lightwell.pipeline.rng import numpy_generator
from scipy import stats


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)))
@settings(max_examples=50, deadline=None)
def test_q_values_equal_those_of_scipy_and_grow_with_p(p_values: np.ndarray) -> None:
    found = q_values(p_values)
    np.testing.assert_allclose(found, stats.false_discovery_control(p_values), rtol=1e-12)
    order = np.argsort(p_values)
    assert (np.diff(found[order]) >= 0).all()
    assert (found >= p_values - 1e-15).all()


def test_tests_that_were_not_made_do_not_count_in_q_values() -> None:
    made = np.array([[0.001, 0.2], [0.03, 0.9]])
    with_gap = np.array([[0.001, np.nan, 0.2], [0.03, np.nan, 0.9]])
    found = q_values(with_gap)
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(found[:, [0, 2]], q_values(made))
    assert q_values(np.empty(0)).shape == (0,)


def test_p_values_of_counts_equal_all_permutations_counted_one_by_one() -> None:
    marked = np.array([1, 1, 0, 1, 0, 0, 0])
    size = 3
    counts = [int(marked[list(chosen)].sum()) for chosen in itertools.combinations(range(7), size)]
    for count in range(4):
        expected = np.mean([other >= count for other in counts])
        found = count_p_values(np.array([[count]]), np.array([size]), np.array([marked.sum()]), 7)
        assert found[0, 0] == pytest.approx(expected)


def test_p_values_of_counts_stay_exact_for_a_threshold_taken_from_the_other_classes() -> None:
    """The chance that at least m images of a class exceed the k-th largest of the others, over all orders."""
    size, others, k = 3, 4, 2
    orders = list(itertools.combinations(range(size + others), size))  # ranks of the class, best first
    above = []
    for ranks in orders:
        rank_of_kth = [rank for rank in range(size + others) if rank not in ranks][k - 1]
        above.append(sum(rank < rank_of_kth for rank in ranks))
    for m in range(size + 1):
        expected = np.mean(np.array(above) >= m)
        found = count_p_values(np.array([[m]]), np.array([size]), np.array([[m + k - 1]]), size + others)
        assert found[0, 0] == pytest.approx(expected)


def test_class_means_of_permuted_labels_equal_a_loop() -> None:
    generator = numpy_generator(1)
    values, labels = generator.normal(size=(30, 4)), generator.integers(0, 3, 30)
    expected = np.stack([values[labels == c].mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(class_means(values, labels, 3), expected)
    (chunk,) = permuted_class_means(values, labels, 3, 5, numpy_generator(7))
    permuted = numpy_generator(7).permuted(np.tile(labels, (5, 1)), axis=1)
    slow = [[values[row == c].mean(axis=0) for c in range(3)] for row in permuted]
    np.testing.assert_allclose(chunk, slow)
    assert np.isnan(class_means(values, labels, 4)[3]).all()


def test_add_one_p_values_equal_a_loop_and_are_never_zero() -> None:
    generator = numpy_generator(2)
    observed, null = generator.normal(size=(2, 3)), generator.normal(size=(19, 2, 3))
    found = add_one_p_values(observed, null)
    for cell in np.ndindex(2, 3):
        assert found[cell] == (1 + sum(null[(b, *cell)] >= observed[cell] for b in range(19))) / 20
    assert (add_one_p_values(np.full((2, 3), 99.0), null) == 0.05).all()


def test_p_values_of_a_difference_are_uniform_when_labels_mean_nothing() -> None:
    """Seeded: 300 data sets without an effect; a p-value below x in a share of x, to three standard errors."""
    generator = numpy_generator(3)
    found = []
    for _ in range(300):
        values, labels = generator.normal(size=(24, 1)), np.repeat([0, 1], 12)
        null = np.concatenate(list(permuted_class_means(values, labels, 2, 99, generator)))
        difference = null[:, 0, 0] - null[:, 1, 0]
        own = class_means(values, labels, 2)
        found.append(float(add_one_p_values(own[0, 0] - own[1, 0], difference)))
    for level in (0.05, 0.2, 0.5, 0.8):
        share = np.mean(np.array(found) <= level)
        assert abs(share - level) < 3 * np.sqrt(level * (1 - level) / 300)


def test_the_wilson_interval_equals_scipys_and_bootstrap_intervals_those_of_a_loop() -> None:
    for count, num in ((0, 7), (3, 7), (7, 7), (24, 114)):
        low, high = stats.binomtest(count, num).proportion_ci(method="wilson")
        assert wilson(count, num) == pytest.approx((low, high))
    values = numpy_generator(4).normal(size=12)
    generator = numpy_generator(5)
    means = [values[row].mean() for row in generator.integers(0, 12, (500, 12))]
    found = bootstrap_mean(values, numpy_generator(5), 500)
    assert found == pytest.approx(tuple(np.quantile(means, (0.025, 0.975))))
    low, high = bootstrap_difference(values + 5, values, numpy_generator(6)) or (0.0, 0.0)
    assert low < 5 < high
    assert wilson(0, 0) is bootstrap_mean(values[:0], generator) is None
    assert bootstrap_difference(values, values[:0], generator) is None
