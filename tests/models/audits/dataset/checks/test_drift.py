from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.drift import compare_numbers, compare_shares, find_drift
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from scipy.stats import chi2_contingency, mannwhitneyu

from .made_tables import make_table

NUM_ROWS = 600
SPLITS = np.array(["train"] * 400 + ["test"] * 200, object)
IN_TEST = SPLITS == "test"


def random_table(seed: int) -> DatasetTable:
    """Make a table of two splits with the same distribution of everything."""
    generator = np.random.default_rng(seed)
    images = {
        name: generator.normal(size=NUM_ROWS) for name in ("brightness", "contrast", "noise", "entropy")
    }
    images["noise"] = images["noise"].round(0)
    files = {
        "format": generator.choice(np.array(["JPEG", "PNG"], object), NUM_ROWS, p=[0.8, 0.2]),
        "exif_camera": generator.choice(np.array(["A", "B", None], object), NUM_ROWS),
        "content_hash": np.array([str(number) for number in range(NUM_ROWS)], object),
    }
    labels = generator.integers(-1, 2, NUM_ROWS)
    return make_table(NUM_ROWS, labels=labels, splits=SPLITS, files=files, images=images)


def test_splits_of_one_distribution_rarely_differ() -> None:
    """With q-values at 1 % and smallest effects, less than one of 20 tables has a finding."""
    assert sum(bool(find_drift(random_table(seed))) for seed in range(20)) <= 1


def test_a_shifted_measure_is_found_with_its_effect() -> None:
    table = random_table(30)
    table.images["contrast"][IN_TEST] += 1
    (found,) = find_drift(table)
    assert found.sentence.startswith(
        "Images of test differ from those of train in 1 of 4 measures, most in contrast (larger"
    )
    assert found.effect.low is not None
    assert found.effect.high is not None
    assert found.effect.low < 0.76 < found.effect.high  # of two normal distributions one deviation apart
    assert found.severity == "medium"
    assert set(found.keys) <= set(table.keys[IN_TEST])
    assert set(found.other_keys) <= set(table.keys[~IN_TEST])


def test_a_camera_and_a_class_that_one_split_has_more_often_are_found() -> None:
    table = random_table(31)
    test = np.flatnonzero(IN_TEST)
    table.files["exif_camera"][test[:100]] = "B"
    table.labels[test[100:]] = 1
    by_class = {found.id: found for found in find_drift(table)}
    sentences = sorted(found.sentence for found in by_class.values())
    assert len(sentences) == 2
    assert "The distribution of class differs between test and train, most for class-1" in sentences[0]
    assert "The distribution of exif_camera differs between test and train, most for B" in sentences[1]
    for found in by_class.values():
        assert found.effect.low is not None
        assert 0.1 < found.effect.low < found.effect.value


@pytest.mark.parametrize(
    "table",
    [
        make_table(0),
        make_table(
            30, splits=np.array(["train"] * 15 + ["test"] * 15, object), images={"noise": np.arange(30.0)}
        ),
        make_table(
            60, splits=np.array(["train", "test"] * 30, object), images={"noise": np.full(60, np.nan)}
        ),
        make_table(60, images={"noise": np.arange(60.0)}),
    ],
)
def test_no_drift_without_enough_to_compare(table: DatasetTable) -> None:
    assert find_drift(table) == []


def test_numbers_are_compared_as_by_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.3, 1, 50).round(1), generator.normal(0, 1, 80).round(1)
    wanted = mannwhitneyu(first, second, use_continuity=False, method="asymptotic")
    found = compare_numbers(np.append(first, np.nan), second)
    assert found is not None
    assert found.area == pytest.approx(wanted.statistic / (50 * 80))
    assert found.p == pytest.approx(wanted.pvalue)


def test_shares_are_compared_as_by_scipy() -> None:
    first, second = np.repeat([0, 1, 2], [40, 30, 30]), np.repeat([0, 1, 2], [20, 60, 40])
    wanted = chi2_contingency([[40, 30, 30], [20, 60, 40]])
    found = compare_shares(first, second, 4)
    assert found is not None
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.value, found.first, found.second) == (0, 0.4, 20 / 120)
    assert found.low < 0.4 - 20 / 120 < found.high
