"""Changed labels are suspected with the class they had; without features, or with clean ones, nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from lightwell.models.audits.dataset.checks.suspected_labels import (
    find_suspected_labels,
    fix_suspected_labels,
    suspected_rows,
)
from lightwell.models.audits.dataset.dataset_table import DatasetTable

NUM_EACH, NUM_CLASSES = 80, 4


def table_of(num_changed: int) -> tuple[DatasetTable, np.ndarray]:
    generator = np.random.default_rng(0)
    true = np.repeat(np.arange(NUM_CLASSES), NUM_EACH)
    features = generator.normal(size=(len(true), 12)) + 4 * np.eye(12)[true]
    labels = true.copy()
    changed = generator.permutation(len(true))[:num_changed]
    labels[changed] = (labels[changed] + 1) % NUM_CLASSES
    features[7] = np.nan
    table = DatasetTable(
        keys=np.array([f"{row:04d}.jpg" for row in range(len(true))], object),
        labels=labels,
        class_names=["a", "b", "c", "d"],
        splits=np.full(len(true), None, object),
        problems=np.full(len(true), None, object),
        seed=0,
        features=features.astype(np.float32),
    )
    return table, np.setdiff1d(changed, [7])


def test_changed_labels_are_suspected_and_the_fix_list_has_the_class_they_had() -> None:
    table, changed = table_of(16)
    found = suspected_rows(table)
    assert found is not None
    assert len(set(found.rows.tolist()) & set(changed.tolist())) >= 0.8 * len(changed)
    findings = find_suspected_labels(table, found)
    assert sum(each.num_concerned for each in findings) == len(found.rows)
    assert all(each.kind == "suspected_label" and each.effect.low is not None for each in findings)
    fixes = {row.key: row for row in fix_suspected_labels(table, found)}
    right = [
        fixes[key].value == "abcd"[(table.labels[row] - 1) % NUM_CLASSES]
        for row in changed.tolist()
        if (key := f"{row:04d}.jpg") in fixes
    ]
    assert np.mean(right) >= 0.9
    assert {row.action for row in fixes.values()} == {"review"}
    assert {row.finding_id for row in fixes.values()} == {each.id for each in findings}


def test_nothing_is_suspected_without_features_labels_or_with_one_class() -> None:
    table, _ = table_of(0)
    for changed in (
        replace(table, features=None),
        replace(table, labels=np.full_like(table.labels, -1)),
        replace(table, labels=np.zeros_like(table.labels)),
    ):
        assert suspected_rows(changed) is None
        assert find_suspected_labels(changed, None) == []
        assert fix_suspected_labels(changed, None) == []


def test_few_clean_labels_are_suspected() -> None:
    table, _ = table_of(0)
    found = suspected_rows(table)
    assert found is None or len(found.rows) <= 0.02 * len(table)
