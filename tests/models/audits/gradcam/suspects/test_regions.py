"""Suspected regions: planted ones are found at their place, nothing is found where nothing is planted or measurable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from image_tables import SIDE, image_table, plant
from lightwell.models.audits.gradcam.suspects.image_table import sum_cells
from lightwell.models.audits.gradcam.suspects.places import all_places, merge_cells, place_name
from lightwell.models.audits.gradcam.suspects.regions import count_marked, region_suspects
from lightwell.models.audits.gradcam.suspects.search import find_suspects, search_extent
from lightwell.pipeline.rng import numpy_generator


def test_evidence_planted_in_a_fifth_of_a_class_is_found_at_its_place() -> None:
    table = image_table()
    planted = np.arange(50, 60)  # of class 1
    plant(table, planted)
    (finding,) = region_suspects(table)
    assert (finding.class_name, finding.num_images) == ("class1", 50)
    assert set(table.keys_of(planted)) <= set(finding.keys)
    assert finding.num_concerned <= 11
    assert finding.effect.value == pytest.approx(0.2, abs=0.021)
    assert finding.null.q is not None
    assert finding.null.q < 1e-4
    assert finding.region is not None
    assert "lower left" in finding.region.name
    inside = finding.region.weights > 0.5
    assert inside[-2:, :2].all()
    assert inside.sum() <= 6
    assert not {table.classes[table.keys == key][0] for key in finding.other_keys} & {1}


def test_evidence_planted_in_every_class_alike_is_not_found() -> None:
    table = image_table()
    plant(table, np.arange(0, 200, 5))
    assert region_suspects(table) == []


def test_evidence_in_all_images_of_one_of_two_classes_is_found() -> None:
    table = image_table(num_classes=2)
    plant(table, np.arange(50, 100))
    largest = max(region_suspects(table), key=lambda finding: finding.num_concerned)
    assert (largest.class_name, largest.num_concerned) == ("class1", 50)
    assert largest.region is not None
    assert largest.region.weights[-2:, :2].sum() > 0.9 * largest.region.weights.sum()


def test_nothing_is_found_without_a_plant_whatever_the_seed() -> None:
    assert [finding for seed in range(20) for finding in region_suspects(image_table(seed=seed))] == []


def test_nothing_is_found_and_nothing_fails_where_there_is_nothing_to_compare() -> None:
    table = image_table()
    num = len(table.keys)
    none = np.full(num, -1)
    for poor in (
        image_table(num_classes=1),
        image_table(num_classes=30, num_each=1),
        image_table(num_classes=2, num_each=1),
        replace(table, shares=np.full_like(table.shares, np.nan), features=np.full_like(table.features, np.nan),
                evidence_features=np.full_like(table.features, np.nan)),
        replace(table, classes=none, labels=none, by_label=False),
        replace(table, labels=none, classes=np.zeros_like(none), predictions=np.zeros_like(none), by_label=False),
    ):  # fmt: skip
        assert find_suspects(poor) == []
        extent = search_extent(poor)
        assert extent["num_classes_examined"] == 0
        assert "no region was searched for" in extent["note"]
    assert search_extent(table) == {
        "num_images": 200,
        "num_with_map": 200,
        "classes_from": "labels",
        "num_classes_examined": 4,
        "note": "",
    }


def test_counts_of_marked_images_equal_a_loop() -> None:
    generator = numpy_generator(3)
    values, is_own = generator.random((60, 5)), np.arange(60) < 20
    floors = np.array([0.0, 0.5, 0.9, 0.97, 1.0])
    found = count_marked(values, is_own, floors)
    for column in range(5):
        others = sorted(values[~is_own, column], reverse=True)
        threshold = max(floors[column], others[int(0.05 * 40)])
        assert found[0, column] == sum(v > threshold for v in values[is_own, column])
        assert found[1, column] == sum(v > threshold for v in others) <= 2


def test_places_cover_what_their_names_mean() -> None:
    places = {place.name: place for place in all_places(8, 8)}
    assert places["border"].area == pytest.approx(1 - 0.8**2)
    assert (
        places["lower left corner"].weights[6:, :2].sum()
        == pytest.approx(4)
        == places["lower left corner"].weights.sum()
    )
    assert sum(place.area for name, place in places.items() if name.endswith("ninth")) == pytest.approx(1)
    assert len(all_places(SIDE, SIDE)) == 1 + 8 + 9 + SIDE**2
    assert place_name(0.9, 0.1) == "lower left"
    assert place_name(0.5, 0.5) == "centre"
    assert sorted(region.sum() for region in merge_cells([0, 1, 9, 63], 8, 8)) == [1, 3]


def test_large_maps_are_summed_by_neighbours_and_regions_come_back_on_their_cells() -> None:
    maps = numpy_generator(4).random((3, 24, 30), dtype=np.float32)
    summed = sum_cells(maps)
    assert summed.shape == (3, 12, 10)
    np.testing.assert_allclose(summed[0, 1, 2], maps[0, 2:4, 6:9].sum(), rtol=1e-6)
    weights = np.zeros((12, 10))
    weights[11, 9] = 1
    region = image_table(map_size=(24, 30)).region("corner", weights).weights
    assert region.shape == (24, 30)
    assert region[22:, 27:].sum() == region.sum() == 6
