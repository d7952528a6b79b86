"""The keyed permutation: a bijection at any size, its own inverse backwards, and as even as chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightwell.pipeline.sampler.permutation import MAX_SIZE, NUM_ROUNDS, Permutation, permute, splitmix64

seeds = st.integers(0, 2**40)
MASK = 2**64 - 1


def slow_place(place: int, size: int, keys: list[int]) -> int:
    """The same in Python's own integers, one place at a time."""
    rows = 2 * math.ceil(math.sqrt(size) / 2)
    columns = -(-size // rows)
    while True:
        row, column = divmod(place, columns)
        for number, key in enumerate(keys):
            bits = slow_mixed(key, column if number % 2 == 0 else row) >> 32
            if number % 2 == 0:
                row = (row + (bits * rows >> 32)) % rows
            else:
                column = (column + (bits * columns >> 32)) % columns
        place = row * columns + column
        if place < size:
            return place


def slow_mixed(seed: int, place: int) -> int:
    bits = (place * 0x9E3779B97F4A7C15 + seed) & MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
    return bits ^ bits >> 31


@pytest.mark.parametrize("size", [*range(1, 200), 1000, 4096, 4097, 65_537, 1_000_003])
def test_every_value_comes_once(size: int) -> None:
    values = Permutation.from_seed("shuffle", 7, size, size)(np.arange(size))
    assert values.dtype == np.int64
    assert np.array_equal(np.bincount(values, minlength=size), np.ones(size))


@given(st.integers(1, 10**9), seeds, st.integers(0, 10**6), st.data())
def test_it_stays_in_range_and_the_inverse_leads_back(
    size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    """A function of a finite set into itself that has an inverse is a bijection."""
    ends = [0, size - 1]
    indices = np.array(data.draw(st.lists(st.integers(0, size - 1), max_size=50)) + ends)
    permutation = Permutation.from_seed("shuffle", seed, epoch, size)
    values = permutation(indices)
    assert ((values >= 0) & (values < size)).all()
    assert np.array_equal(permutation.inverse(values), indices)
    assert np.array_equal(permutation(permutation.inverse(indices)), indices)


@pytest.mark.parametrize("size", [10**9, 10**9 + 7, 2**40, MAX_SIZE])
def test_huge_sizes_give_distinct_values_that_lead_back(size: int) -> None:
    indices = np.unique(np.random.default_rng(0).integers(0, size, 200_000))
    permutation = Permutation.from_seed("shuffle", 1, 2, size)
    values = permutation(indices)
    assert len(np.unique(values)) == len(indices)
    assert values.min() >= 0
    assert values.max() < size
    assert np.array_equal(permutation.inverse(values), indices)


@given(st.integers(1, 10**12), seeds, st.data())
def test_the_fast_way_equals_the_slow_one(size: int, seed: int, data: st.DataObject) -> None:
    permutation = Permutation.from_seed("shuffle", seed, 3, size)
    keys = [int(key) for key in permutation.keys]
    indices = data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=8))
    assert permutation(np.array(indices)).tolist() == [slow_place(place, size, keys) for place in indices]


def test_many_permutations_at_once_equal_one_after_another() -> None:
    sizes = np.array([1, 5, 1000, 10**9])
    keys = splitmix64(np.arange(NUM_ROUNDS, dtype=np.uint64)[:, None], np.arange(4, dtype=np.uint64))
    together = permute(sizes - 1, sizes.astype(np.uint64), keys)
    alone = [
        int(permute(np.array([size - 1]), np.uint64(size), keys[:, number])[0])
        for number, size in enumerate(sizes)
    ]
    assert together.tolist() == alone


def test_the_orders_of_five_things_are_equally_likely() -> None:
    """Pearson's chi-square over all 120 orders; five standard deviations above its mean would be no chance."""
    trials = 120 * 100
    keys = np.random.default_rng(1).integers(0, 2**64, (NUM_ROUNDS, trials), dtype=np.uint64)
    orders = np.stack([permute(np.full(trials, place), np.uint64(5), keys) for place in range(5)], axis=1)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 120
    statistic = ((counts - 100) ** 2 / 100).sum()
    assert abs(statistic - 119) < 5 * math.sqrt(2 * 119)


def test_places_do_not_predict_values_and_neighbours_do_not_stay_together() -> None:
    size = 100_000
    first, second = (Permutation.from_seed("shuffle", 0, epoch, size)(np.arange(size)) for epoch in (0, 1))
    for one, other in ((np.arange(size), first), (first, second), (first[:-1], first[1:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(size)
    tenths = np.histogram2d(np.arange(size), first, bins=10)[0]
    assert abs(((tenths - 1000) ** 2 / 1000).sum() - 81) < 5 * math.sqrt(2 * 81)
    assert (np.abs(np.diff(first)) == 1).sum() < 20
