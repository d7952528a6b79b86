"""Classes and splits with few similar images, and classes of few distinct ones, are found; equal classes are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from lightwell.models.audits.dataset.checks.coverage import find_coverage
from lightwell.models.audits.dataset.dataset_table import DatasetTable

from .made_tables import make_table

NUM_EACH, NUM_CLASSES, WIDTH = 60, 4, 32


def table_of(seed: int, spreads: tuple[float, ...] = (1.0,) * NUM_CLASSES) -> DatasetTable:
    """Make classes of images around centers, with a spread of each."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(NUM_CLASSES), NUM_EACH)
    centers = generator.normal(0, 3, (NUM_CLASSES, WIDTH))
    features = centers[labels] + np.array(spreads)[labels, None] * generator.normal(size=(len(labels), WIDTH))
    return make_table(
        len(labels), NUM_CLASSES, labels=labels, features=features.astype(np.float32), seed=seed
    )


def test_a_varied_class_has_few_similar_images() -> None:
    found = [each for each in find_coverage(table_of(0, (1.0, 1.0, 1.0, 2.5))) if each.class_number == 3]
    assert len(found) == 1
    assert found[0].effect.unit == "share of its images"
    assert found[0].null.q is not None
    assert found[0].effect.value > 2 * 0.05
    assert set(found[0].keys) <= {f"image-{row:05d}.jpg" for row in range(3 * NUM_EACH, 4 * NUM_EACH)}


def test_a_split_unlike_the_others_has_few_similar_images() -> None:
    table = table_of(1)
    assert table.features is not None
    splits = np.full(len(table), "train", object)
    splits[::8] = "test"
    features = table.features.copy()
    features[::8] += np.random.default_rng(2).normal(0, 2, (len(features[::8]), WIDTH))
    found = find_coverage(replace(table, splits=splits, features=features))
    assert [each.group for each in found] == ["split = test"]


def test_a_class_of_few_sources_is_named_with_how_much_closer_its_images_are() -> None:
    table = table_of(2)
    assert table.features is not None
    features = table.features.copy()
    own = np.flatnonzero(table.labels == 2)
    noise = np.random.default_rng(3).normal(0, 0.1, (len(own), WIDTH))
    features[own] = features[own[:5]][np.arange(len(own)) % 5] + noise
    (found,) = [each for each in find_coverage(replace(table, features=features)) if "close" in each.sentence]
    assert found.class_name == "class-2"
    assert found.effect.high is not None
    assert found.effect.value < found.effect.high <= 0.5


def test_labels_that_mean_nothing_have_no_finding_over_twenty_seeds() -> None:
    tables = [table_of(seed) for seed in range(20)]
    for table in tables:
        np.random.default_rng(table.seed).shuffle(table.labels)
    assert sum(len(find_coverage(table)) for table in tables) <= 1


def test_tables_without_features_labels_or_enough_images_have_no_finding() -> None:
    table = table_of(0)
    assert table.features is not None
    assert find_coverage(replace(table, features=None)) == []
    assert find_coverage(replace(table, labels=np.full_like(table.labels, -1))) == []
    assert find_coverage(replace(table, features=np.full_like(table.features, np.nan))) == []
    assert find_coverage(replace(table, features=np.ones_like(table.features))) == []
