from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.sample_order import find_sample_order, label_runs, lag_one
from lightwell.models.audits.dataset.dataset_table import DatasetTable

from .made_tables import make_table

NUM_ROWS = 300


def random_table(seed: int, **fields: object) -> DatasetTable:
    """Make a table of three classes in a random order."""
    generator = np.random.default_rng(seed)
    images = {name: generator.normal(size=NUM_ROWS) for name in ("brightness", "contrast", "noise")}
    return make_table(
        NUM_ROWS, 3, **{"labels": generator.integers(0, 3, NUM_ROWS), "images": images, **fields}
    )


def slow_walk(seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=NUM_ROWS)
    return np.convolve(steps, np.ones(8), mode="same")


def test_a_random_order_is_rarely_found() -> None:
    assert sum(bool(find_sample_order(random_table(seed))) for seed in range(20)) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_classes_in_folders_or_one_after_another_are_normal(seed: int) -> None:
    labels = np.repeat([0, 1, 2], 100)
    brightness = labels + np.random.default_rng(seed).normal(size=NUM_ROWS) / 10
    folders = np.array([f"{label}/{number:03d}.jpg" for number, label in enumerate(labels)], object)
    images = {"brightness": brightness}
    assert find_sample_order(random_table(seed, labels=labels, images=images)) == []
    assert find_sample_order(random_table(seed, labels=labels, images=images, keys=folders)) == []


def test_neighbours_that_are_alike_within_their_class_are_found() -> None:
    table = random_table(40, labels=np.repeat([0, 1, 2], 100))
    table.images["noise"][:] = slow_walk(0)
    (found,) = find_sample_order(table)
    assert found.severity == "medium"
    assert "the noise of an image and the next correlate with 0." in found.sentence
    assert "1 of 3 measures" in found.sentence
    assert found.effect.low is not None
    assert found.effect.low > 0.5


def test_numbers_in_file_names_are_an_order_of_their_own() -> None:
    shuffled = np.random.default_rng(3).permutation(NUM_ROWS)
    keys = np.array([f"films/frame{number}.jpg" for number in shuffled], object)
    table = random_table(41, labels=np.zeros(NUM_ROWS, np.int64), keys=keys)
    table.images["contrast"][:] = slow_walk(1)[shuffled]
    (found,) = find_sample_order(table)
    assert "in the order of the file names" in found.sentence


def test_partly_sorted_labels_are_found() -> None:
    labels = np.repeat(np.random.default_rng(2).integers(0, 3, NUM_ROWS // 5), 5)
    (found,) = find_sample_order(random_table(42, labels=labels))
    assert found.id.startswith("sample_order")
    assert "Labels are partly sorted in the order of the" in found.sentence
    assert found.null.expected == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize(
    "table", [make_table(0), make_table(1), make_table(100, images={"noise": np.full(100, np.nan)})]
)
def test_no_order_without_enough_images(table: DatasetTable) -> None:
    assert find_sample_order(table) == []


def test_long_numbers_in_names_are_sorted() -> None:
    keys = np.array([f"{'9' * 5000}{number}" for number in range(30)], object)
    assert find_sample_order(make_table(30, keys=keys)) == []


def test_z_scores_are_those_of_permutations() -> None:
    generator = np.random.default_rng(4)
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    strata = np.repeat([0, 1], 30)
    runs = [label_runs(generator.permutation(labels)) for _ in range(2000)]
    assert np.mean([equal for equal, _, _ in runs]) == pytest.approx(runs[0][1], abs=0.01)
    correlations = [lag_one(generator.normal(size=60), strata, np.arange(60))[1] for _ in range(2000)]
    for scores in ([z for _, _, z in runs], correlations):
        assert np.mean(scores) == pytest.approx(0, abs=0.1)
        assert np.std(scores) == pytest.approx(1, abs=0.08)
