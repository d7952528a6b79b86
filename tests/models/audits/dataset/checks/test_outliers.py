"""Images unlike all others are outliers, also several of one kind; usual ones are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.feature_distances import neighbour_distances
from lightwell.models.audits.dataset.checks.outliers import find_outliers
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.models.audits.findings import neighbour_cosines

from .made_tables import make_table

NUM_EACH, NUM_CLASSES, WIDTH = 100, 4, 48


def table_of(seed: int, strange: int = 0, *, alike: bool = False) -> DatasetTable:
    """Make classes of different spread, whose last images are unlike all others, or like each other only."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(NUM_CLASSES), NUM_EACH)
    centers = generator.normal(0, 3, (NUM_CLASSES, WIDTH))
    spread = np.array([0.6, 0.8, 1.0, 1.2])[labels, None]
    features = centers[labels] + spread * generator.normal(size=(len(labels), WIDTH))
    if strange:
        rows = generator.permutation(len(labels))[:strange]
        place = generator.normal(0, 3, (1 if alike else strange, WIDTH))
        features[rows] = place + 0.6 * generator.normal(size=(strange, WIDTH))
        features[rows[0]] = np.nan
    return make_table(
        len(labels), NUM_CLASSES, labels=labels, features=features.astype(np.float32), seed=seed
    )


def strange_rows(table: DatasetTable, strange: int) -> set[str]:
    generator = np.random.default_rng(table.seed)
    generator.normal(0, 3, (NUM_CLASSES, WIDTH))
    generator.normal(size=(len(table), WIDTH))
    return set(table.keys_of(generator.permutation(len(table))[1:strange]))


@pytest.mark.parametrize("alike", [False, True])
def test_strange_images_are_found_alone_and_in_groups_smaller_than_a_tenth(alike: bool) -> None:
    table = table_of(0, 16, alike=alike)
    (found,) = find_outliers(table)
    planted = strange_rows(table, 16)
    assert len(planted & set(found.keys)) >= 0.8 * len(planted)
    assert found.num_concerned <= len(planted) + 2
    assert found.num_images == len(table) - 1
    assert found.effect.low is not None
    assert found.effect.low < found.effect.value


def test_clean_images_are_reported_at_most_once_in_a_hundred() -> None:
    reported = [sum(found.num_concerned for found in find_outliers(table_of(seed))) for seed in range(20)]
    assert sum(reported) <= 0.01 * 20 * NUM_EACH * NUM_CLASSES


def test_a_wrong_label_is_no_outlier() -> None:
    table = table_of(1)
    table.labels[:8] = 3
    assert find_outliers(table) == []


def test_few_images_equal_ones_and_tables_without_features_have_no_outliers() -> None:
    table = table_of(0)
    assert table.features is not None
    assert find_outliers(replace(table, features=None)) == []
    assert find_outliers(replace(table, features=np.ones_like(table.features))) == []
    assert find_outliers(replace(table, features=np.full_like(table.features, np.nan))) == []
    unlabelled = replace(table, labels=np.full_like(table.labels, -1))
    assert all("labelled" not in found.sentence for found in find_outliers(unlabelled))


def test_distances_are_those_of_a_plain_search_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(50, 8)).astype(np.float32)
    rows = np.arange(1, 50, 2)
    units = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
    plain = np.sort(np.linalg.norm(units[:, None] - units[None], axis=2), axis=1)[:, 1:]
    monkeypatch.setattr(neighbour_cosines, "BLOCK_ROWS", 7)
    found = neighbour_distances(features, rows, (1, 5), generator)
    np.testing.assert_allclose(found, plain[:, [0, 4]], atol=1e-3)
    monkeypatch.setattr(neighbour_cosines, "MAX_REFERENCES", 10)
    sampled = neighbour_distances(features, rows, (1, 5), generator)
    assert (sampled >= found - 1e-3).all()
    assert sampled.min() > 0.01
