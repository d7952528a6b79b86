"""The curve falls where more images help, is flat where they do not, and its extrapolation fits a curve that is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.learning_curve import (
    _gain,
    find_learning_curve,
    measure_curve,
)
from lightwell.models.audits.dataset.dataset_table import DatasetTable


def table_of(distance: float, num_each: int, dimensions: int) -> DatasetTable:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), num_each)
    features = generator.normal(size=(len(labels), dimensions))
    features[:, :3] += distance * np.eye(3)[labels]
    return DatasetTable(
        keys=np.array([str(row) for row in range(len(labels))], object),
        labels=labels,
        class_names=["a", "b", "c"],
        splits=np.full(len(labels), None, object),
        problems=np.full(len(labels), None, object),
        seed=0,
        features=features.astype(np.float32),
    )


def test_more_images_help_where_the_classifier_has_many_dimensions_and_few_images() -> None:
    curve = measure_curve(table_of(2.0, 120, 100))
    assert curve is not None
    assert curve.errors.mean(axis=1).tolist() == sorted(curve.errors.mean(axis=1).tolist(), reverse=True)
    assert 0 < curve.low < curve.error - curve.doubled < curve.high
    (found,) = find_learning_curve(table_of(2.0, 120, 100), curve)
    assert found.severity == "low"


def test_more_images_do_not_help_where_the_classes_are_easily_told_apart() -> None:
    curve = measure_curve(table_of(9.0, 120, 3))
    assert curve is not None
    assert abs(curve.error - curve.doubled) < 0.005
    assert find_learning_curve(table_of(9.0, 120, 3), curve)[0].severity == "note"


def test_the_same_table_gives_the_same_curve() -> None:
    first, second = (measure_curve(table_of(3.0, 60, 20)) for _ in range(2))
    assert first is not None
    assert second is not None
    assert np.array_equal(first.errors, second.errors)
    assert (first.low, first.high) == (second.low, second.high)


def test_a_rare_class_of_large_data_is_in_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightwell.models.audits.dataset.checks.learning_curve.MAX_ROWS", 120)
    table = table_of(9.0, 400, 3)
    rare = np.concatenate([np.arange(400), np.arange(400, 440), np.arange(800, 1200)])
    kept = replace(
        table, keys=table.keys[rare], labels=table.labels[rare], splits=table.splits[rare], problems=table.problems[rare],
        features=None if table.features is None else table.features[rare],
    )  # fmt: skip
    curve = measure_curve(kept)
    assert curve is not None
    assert np.isfinite(curve.errors).all()
    assert curve.sizes[-1] == 96  # 40 of each class, less the fold that is predicted


def test_few_images_or_no_features_give_no_curve() -> None:
    assert measure_curve(table_of(3.0, 39, 5)) is None
    assert find_learning_curve(table_of(3.0, 39, 5), None) == []


@pytest.mark.parametrize("exponent", [0.2, 0.5, 1.0])
def test_the_gain_of_a_power_law_is_recovered(exponent: float) -> None:
    sizes = np.array([50.0, 100, 200, 400])
    errors = 2 * sizes**-exponent + 0.05
    expected = 2 * (400**-exponent - 800**-exponent)
    assert _gain(sizes, errors) == pytest.approx(expected, rel=0.02)
