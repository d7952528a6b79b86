"""Splits: by name or by keyed hash."""

from __future__ import annotations

from collections import Counter

import pytest
from lightwell.pipeline.errors import SourceError
from lightwell.pipeline.index.splits import DEFAULT_FRACTIONS, assign_splits, canonical_split, hash_to_unit

KEYS = [f"cat/{number}.jpg" for number in range(5000)]


def test_adding_and_removing_files_does_not_change_other_splits():
    alone = dict(zip(KEYS[::3], assign_splits(KEYS[::3], DEFAULT_FRACTIONS, 7), strict=True))
    among = dict(zip(KEYS, assign_splits(KEYS, DEFAULT_FRACTIONS, 7), strict=True))
    assert all(among[key] == split for key, split in alone.items())


def test_fractions_are_met_within_four_standard_deviations():
    counts = Counter(assign_splits(KEYS, {"train": 0.75, "test": 0.25}, 0))
    assert abs(counts["test"] - 1250) < 4 * (5000 * 0.75 * 0.25) ** 0.5


def test_another_seed_is_another_split():
    assert assign_splits(KEYS, DEFAULT_FRACTIONS, 0) != assign_splits(KEYS, DEFAULT_FRACTIONS, 1)


def test_the_hash_is_the_same_on_every_machine_and_release():
    assert hash_to_unit("cat/1.jpg", 0) == 0.8719358956233109
    assert all(0 <= hash_to_unit(key, -3) < 1 for key in KEYS)


def test_a_split_with_fraction_zero_stays_empty():
    assert set(assign_splits(KEYS, {"none": 0.0, "train": 1.0, "test": 0.0}, 0)) == {"train"}


def test_keys_that_are_not_utf8_are_hashed_too():
    assert assign_splits(["\udcff.jpg"], {"all": 1.0}, 0) == ["all"]


@pytest.mark.parametrize(
    "fractions",
    [
        {},
        {"train": 0.5},
        {"train": 1.5, "test": -0.5},
        {"train": float("nan")},
        {" ": 1.0},
        {"train": "1"},
        {"train": True},
        {1: 1.0},
        [0.8, 0.2],
    ],
)
def test_fractions_that_do_not_sum_to_one_are_refused(fractions):
    with pytest.raises(SourceError, match="fractions: expected named fractions that sum to 1"):
        assign_splits(KEYS, fractions, 0)


@pytest.mark.parametrize(
    ("name", "split"), [("Train", "train"), ("training", "train"), ("valid", "val"), ("VALIDATION", "val"),
                        ("testing", "test"), ("cat", None), ("trainannot", None)],
)  # fmt: skip
def test_common_names_are_mapped_to_three_splits(name, split):
    assert canonical_split(name) == split
