from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.duplicate_groups import groups_of
from lightwell.models.audits.dataset.checks.leakage import (
    correct_predictions,
    find_leakage,
    find_leaks,
    leaked_rows,
    restated_score,
)
from lightwell.models.audits.dataset.checks.split_repair import fix_leakage, repaired_splits
from lightwell.models.audits.dataset.dataset_table import DatasetTable
from lightwell.pipeline.errors import RequestError

from .made_tables import jpeg, make_pictures, make_table, picture_table

NUM_TRAIN, NUM_TEST = 100, 40
SPLITS = np.array(["train"] * NUM_TRAIN + ["test"] * NUM_TEST, object)


@pytest.fixture(scope="module")
def leaky() -> DatasetTable:
    """100 training and 40 test images: of the first ten test images, 4 copies, 6 compressed again, are in training."""
    pictures = make_pictures(np.random.default_rng(7), NUM_TRAIN + NUM_TEST)
    for number in range(10):
        source = pictures[NUM_TRAIN + number]
        pictures[number] = source if number < 4 else jpeg(source, 50)
    hashes = np.array([picture.tobytes().hex() for picture in pictures], object)
    table = picture_table(pictures, splits=SPLITS)
    return make_table(
        len(table), splits=SPLITS, images=table.images, files={**table.files, "content_hash": hashes}
    )


def keyed_table(keys: list[str | None], splits: list[str | None], labels: list[int]) -> DatasetTable:
    return make_table(
        len(keys),
        files={"patient": np.array(keys, object)},
        splits=np.array(splits, object),
        labels=np.array(labels, np.int64),
    )


def test_leaks_are_counted_once_by_copy_then_by_near_duplicate(leaky: DatasetTable) -> None:
    copies, near = find_leakage(leaky)
    assert copies.sentence == "4 of 40 images of test have exact copies in train."
    assert near.sentence == "6 of 40 images of test have near duplicates in train."
    assert (copies.severity, near.effect.value) == ("high", 0.15)
    assert copies.keys == leaky.keys_of(range(100, 104))
    assert copies.other_keys == leaky.keys_of(range(4))


def test_leaked_images_are_dropped_from_training(leaky: DatasetTable) -> None:
    rows = fix_leakage(leaky)
    assert [(row.key, row.action) for row in rows] == [(leaky.keys[row], "drop") for row in range(10)]
    ids = {finding.id for finding in find_leakage(leaky)}
    assert {row.finding_id for row in rows} == ids


def test_the_score_is_restated_without_the_leaked_images(leaky: DatasetTable) -> None:
    is_right = np.array([1.0] * 10 + [1.0, 0.0] * 15)
    correct = np.concatenate([np.full(NUM_TRAIN, np.nan), is_right])
    sentence = find_leakage(leaky, correct=correct)[1].sentence
    assert "Without them the accuracy is 55.9 % instead of 62.5 % (-6.6 points" in sentence
    leaked = leaked_rows(leaky, find_leaks(leaky), "test")[NUM_TRAIN:]
    score = restated_score(is_right, leaked, np.random.default_rng(0))
    assert score is not None
    assert (score.every, score.without, score.num_leaked) == (0.625, 0.5, 10)
    assert score.change.low is not None
    assert score.change.high is not None
    assert score.change.low < -0.125 < score.change.high < 0


def test_no_score_is_restated_without_predictions() -> None:
    none = np.full(4, np.nan)
    assert restated_score(none, np.array([True, False] * 2), np.random.default_rng(0)) is None
    assert restated_score(np.ones(4), np.zeros(4, np.bool_), np.random.default_rng(0)) is None


def test_predictions_are_joined_by_key() -> None:
    table = make_table(4)
    found = correct_predictions(table, table.keys[[2, 0]], np.array([True, False]))
    np.testing.assert_array_equal(found, [0, np.nan, 1, np.nan])


@pytest.mark.parametrize("seed", range(20))
def test_splits_without_common_images_have_no_leaks(seed: int) -> None:
    pictures = make_pictures(np.random.default_rng(1000 + seed), 100)
    table = picture_table(pictures, splits=np.array(["train"] * 60 + ["test"] * 40, object))
    assert find_leakage(table) == []
    assert fix_leakage(table) == []


@pytest.mark.parametrize("splits", [[None] * 4, ["train"] * 4, ["test"] * 4])
def test_one_split_has_no_leaks(splits: list[str | None]) -> None:
    table = keyed_table(["a", "a", "a", "b"], splits, [0] * 4)
    leaks = find_leaks(table, "patient")
    assert find_leakage(table, leaks) == []
    assert fix_leakage(table, leaks) == []


def test_a_group_key_in_two_splits_is_found_and_moved() -> None:
    table = keyed_table(
        ["a", "a", "a", "b", "b", None], ["train", "train", "test", "test", "test", "train"], [0] * 6
    )
    leaks = find_leaks(table, "patient")
    (found,) = find_leakage(table, leaks)
    assert found.sentence == "1 of 3 images of test have the same patient as images of train."
    assert found.severity == "medium"
    (row,) = fix_leakage(table, leaks)
    assert (row.key, row.action, row.value, row.finding_id) == (table.keys[2], "move", "train", found.id)


def test_a_column_of_groups_that_is_not_there_is_refused() -> None:
    table = keyed_table(["a"], ["test"], [0])
    with pytest.raises(RequestError, match=r"expected one of patient as the column of groups, got .*camera"):
        find_leaks(table, "camera")


def test_one_camera_and_second_is_one_scene_but_a_default_date_is_not() -> None:
    dates = ["2024:05:01 10:00:00"] * 2 + ["2000:01:01 00:00:00"] * 40
    table = make_table(
        42,
        files={"exif_camera": np.array(["X100"] * 42, object), "exif_date": np.array(dates, object)},
        splits=np.array(["train", "test"] * 21, object),
    )
    (found,) = find_leakage(table)
    assert found.sentence == "1 of 21 images of test have the same camera and time as images of train."


def test_repaired_splits_share_no_group_and_keep_the_classes_balanced() -> None:
    generator = np.random.default_rng(3)
    keys = generator.integers(0, 150, 900)
    labels = generator.integers(0, 3, 900)
    splits = np.array(["train", "test"], object)[(generator.random(900) < 0.3).astype(int)]
    table = make_table(900, num_classes=3, labels=labels, splits=splits)
    repaired = repaired_splits(table, groups_of(keys))
    assert all(len(set(repaired[keys == key])) == 1 for key in range(150))
    for name in ("train", "test"):
        before, after = (np.bincount(labels[one == name], minlength=3) for one in (splits, repaired))
        assert (np.abs(after - before) <= 0.1 * before).all()
    np.testing.assert_array_equal(repaired, repaired_splits(table, groups_of(keys)))


def test_groups_within_a_split_and_images_without_split_stay() -> None:
    table = keyed_table(["a", "a", "b", "b"], ["test", "test", "train", None], [0, 1, -1, -1])
    repaired = repaired_splits(table, find_leaks(table, "patient").by_key)
    np.testing.assert_array_equal(repaired, table.splits)
