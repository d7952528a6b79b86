from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks import feature_pairs
from lightwell.models.audits.dataset.checks.duplicate_groups import groups_around_medoids
from lightwell.models.audits.dataset.checks.exact_duplicates import (
    find_exact_duplicates,
    fix_exact_duplicates,
)
from lightwell.models.audits.dataset.checks.near_duplicates import (
    find_near_duplicates,
    fix_near_duplicates,
    near_groups,
)
from lightwell.models.audits.dataset.dataset_table import DatasetTable

from .made_tables import copies_of, make_pictures, make_table, picture_table

NUM_SOURCES = 120
COPIES = tuple(copies_of(np.zeros((64, 64, 3), np.uint8)))


def hash_table(hashes: list[str | None], **fields: object) -> DatasetTable:
    return make_table(len(hashes), files={"content_hash": np.array(hashes, object)}, **fields)


def groups_in(table: DatasetTable) -> list[list[int]]:
    return [rows.tolist() for rows in near_groups(table).members()]


@pytest.fixture(scope="module")
def planted() -> DatasetTable:
    """120 pictures, then five changed copies of each of the first 20."""
    pictures = make_pictures(np.random.default_rng(5), NUM_SOURCES)
    return picture_table(pictures + [copy for one in pictures[:20] for copy in copies_of(one).values()])


def test_equal_files_are_found_with_different_labels_first() -> None:
    table = hash_table(["a", "b", "a", "c", "b", "a", None], labels=np.array([0, 1, 0, 0, 0, 0, 1]))
    conflict, every = find_exact_duplicates(table)
    assert (conflict.severity, conflict.num_concerned) == ("high", 2)
    assert "different labels: 1 group, most often class-0 and class-1 (1)." in conflict.sentence
    assert (every.num_concerned, every.num_images) == (5, 7)
    assert every.effect.value == pytest.approx(3 / 7)
    assert every.keys[:3] == table.keys_of([0, 2, 5])


def test_equal_pixels_count_as_copies_where_they_are_known() -> None:
    pixels = np.array([[1, 2], [3, 4], [3, 4], [0, 0]], np.uint8)
    table = make_table(
        4, files={"content_hash": np.array(["a", "b", "c", "a"], object)}, images={"pixel_hash": pixels}
    )
    (every,) = find_exact_duplicates(table)
    assert every.keys == table.keys_of([1, 2])


def test_the_largest_file_of_an_evaluation_split_is_kept() -> None:
    table = make_table(
        5,
        files={
            "content_hash": np.array(["a"] * 3 + ["b"] * 2, object),
            "bytes": np.array([9, 5, 7, 1, 2]),
        },
        splits=np.array(["train", "test", "test", "train", "train"], object),
    )
    rows = fix_exact_duplicates(table)
    assert [(row.key, row.action) for row in rows] == [(table.keys[row], "drop") for row in (0, 1, 3)]
    assert rows[0].reason == f"copy of {table.keys[2]}"


def test_copies_with_different_labels_are_dropped_from_training_only() -> None:
    table = hash_table(
        ["a", "a", "b", "b"],
        labels=np.array([0, 1, 0, 1]),
        splits=np.array(["train", "train", "test", "train"], object),
    )
    assert [row.key for row in fix_exact_duplicates(table)] == [table.keys[3]]


def test_copies_in_two_evaluation_splits_are_both_kept() -> None:
    table = hash_table(["a", "a"], splits=np.array(["test", "validation"], object))
    assert fix_exact_duplicates(table) == []


@pytest.mark.parametrize("table", [make_table(0), make_table(1), hash_table([None, None]), hash_table(["a"])])
def test_nothing_is_found_where_nothing_can_be(table: DatasetTable) -> None:
    assert find_exact_duplicates(table) == find_near_duplicates(table) == []
    assert fix_exact_duplicates(table) == fix_near_duplicates(table) == []


def test_unreadable_images_are_no_copies_of_each_other(planted: DatasetTable) -> None:
    images = {name: np.zeros_like(column[:4]) for name, column in planted.images.items()}
    table = make_table(4, images=images, problems=np.full(4, "truncated", object))
    assert find_near_duplicates(table) == []


@pytest.mark.parametrize("change", COPIES)
def test_changed_copies_are_found(planted: DatasetTable, change: str) -> None:
    numbers = near_groups(planted).numbers
    rows = NUM_SOURCES + np.arange(20) * len(COPIES) + COPIES.index(change)
    assert (numbers[rows] == numbers[:20]).mean() >= 0.95


def test_brighter_copies_are_found() -> None:
    pictures = make_pictures(np.random.default_rng(12), 120)
    brighter = [np.clip(picture * 0.6 + 100, 0, 255).astype(np.uint8) for picture in pictures[:10]]
    found = near_groups(picture_table(pictures + brighter)).numbers
    assert (found[120:] == found[:10]).mean() >= 0.9
    assert set(found[10:120]) == {-1}


def test_no_group_has_pictures_of_different_sources(planted: DatasetTable) -> None:
    sources = np.concatenate([np.arange(NUM_SOURCES), np.repeat(np.arange(20), len(COPIES))])
    assert all(len(set(sources[rows])) == 1 for rows in groups_in(planted))
    assert near_groups(planted).count == 20


def test_near_duplicates_are_dropped_but_the_largest(planted: DatasetTable) -> None:
    (every,) = find_near_duplicates(planted)
    rows = fix_near_duplicates(planted)
    assert len(rows) == every.num_concerned - 20
    doubled = {planted.keys[NUM_SOURCES + number * 5 + COPIES.index("doubled")] for number in range(20)}
    assert not doubled & {row.key for row in rows}
    assert {row.finding_id for row in rows} == {every.id}


@pytest.mark.parametrize("seed", range(20))
def test_different_pictures_are_no_near_duplicates(seed: int) -> None:
    table = picture_table(make_pictures(np.random.default_rng(100 + seed), 120))
    assert find_near_duplicates(table) == []


def test_plain_pictures_of_different_colours_are_not_one_group() -> None:
    generator = np.random.default_rng(1)
    shades = [np.full((32, 32, 3), shade, np.uint8) for shade in range(0, 256, 2)]
    skies = [
        np.repeat(np.linspace(top, top + 60, 32).astype(np.uint8)[:, None, None], 32, 1).repeat(3, 2)
        for top in generator.permutation(190)[:60]
    ]
    assert max((len(rows) for rows in groups_in(picture_table(shades + skies))), default=0) <= 12


def test_cropped_copies_are_found_by_features() -> None:
    """Hashes of a copy without its right and lower tenth have little in common with those of the whole picture."""
    generator = np.random.default_rng(9)
    pictures = make_pictures(generator, 120)
    cropped = [np.ascontiguousarray(picture[:58, :58]) for picture in pictures[:10]]
    features = generator.normal(size=(130, 32)).astype(np.float32)
    features[120:] = features[:10] + generator.normal(size=(10, 32)) / 8
    features[5] = np.nan
    found = near_groups(picture_table(pictures + cropped, features=features)).numbers
    is_found = found[120:] == found[:10]
    assert is_found[np.arange(10) != 5].mean() >= 0.8
    assert set(found[10:120]) == {-1}


def test_similar_features_of_different_pictures_are_no_duplicates() -> None:
    pictures = make_pictures(np.random.default_rng(10), 120)
    features = np.ones((120, 8), np.float32)
    assert near_groups(picture_table(pictures, features=features)).count <= 1


def test_feature_pairs_are_those_of_comparing_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_pairs, "BLOCK_ROWS", 7)
    features = np.random.default_rng(11).normal(size=(40, 3)).astype(np.float32)
    features[3] = 0
    features[4, 0] = np.nan
    found = [np.stack(pair, axis=1) for pair in feature_pairs.feature_pairs(features, 0.9)]
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        cosines = (features / lengths) @ (features / lengths).T
    assert sorted(map(tuple, np.concatenate(found).tolist())) == list(
        map(tuple, np.argwhere(np.triu(cosines >= 0.9, 1)).tolist())
    )
    monkeypatch.setattr(feature_pairs, "MAX_ROWS", 39)
    near = [
        tuple(pair)
        for pairs in feature_pairs.feature_pairs(features, 0.9)
        for pair in np.stack(pairs, axis=1).tolist()
    ]
    expected = list(map(tuple, np.argwhere(np.triu(cosines >= 0.9, 1)).tolist()))
    assert len(near) == len(set(near))
    assert set(near) <= set(expected)
    assert len(near) >= 0.9 * len(expected)


def test_images_of_one_kind_are_not_one_group() -> None:
    """All X-rays look alike; copies are closer to each other than two of them are by chance."""
    generator = np.random.default_rng(2)
    (shape,) = make_pictures(generator, 1)
    alike = [
        np.clip(shape + 24.0 * (extra.astype(float) / 128 - 1), 0, 255).astype(np.uint8)
        for extra in make_pictures(generator, 200)
    ]
    table = picture_table([*alike, alike[3]])
    groups = groups_in(table)
    assert [3, 200] in groups or any({3, 200} <= set(rows) for rows in groups)
    assert sum(map(len, groups)) <= 12


def test_a_chain_of_pairs_is_cut_around_medoids() -> None:
    first = np.arange(9)
    none = np.zeros(0, np.intp)
    groups = groups_around_medoids((none, none), (first, first + 1), 12)
    assert max(len(rows) for rows in groups.members()) == 3
    same = groups_around_medoids((first, first + 1), (none, none), 12)
    assert [rows.tolist() for rows in same.members()] == [list(range(10))]
