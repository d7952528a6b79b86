"""A property that tells classes apart is reported with class and value; one that says nothing is not, however unequal the classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lightwell.models.audits.dataset.checks.predictive_properties import (
    find_predictive_properties,
    group_numbers,
)
from lightwell.models.audits.dataset.dataset_table import DatasetTable

SIZES = (200, 200, 200)


def table_of(sizes: tuple[int, ...] = SIZES, seed: int = 0, **files: Any) -> DatasetTable:
    num = sum(sizes)
    return DatasetTable(
        keys=np.array([f"{row:05d}.jpg" for row in range(num)], object),
        labels=np.repeat(np.arange(len(sizes)), sizes),
        class_names=[f"class{number}" for number in range(len(sizes))],
        splits=np.full(num, None, object),
        problems=np.full(num, None, object),
        seed=seed,
        files=files,
    )


def test_one_class_saved_at_another_quality_is_found_with_its_value() -> None:
    generator = np.random.default_rng(0)
    quality = generator.choice([90.0, 92.0, 95.0], 600)
    quality[200:386] = 75
    quality[[3, 450]] = 75
    (found,) = find_predictive_properties(
        table_of(jpeg_quality=quality, width=generator.normal(500, 50, 600))
    )
    assert (found.class_name, found.group, found.num_concerned) == ("class1", "jpeg_quality = 75", 186)
    assert found.severity in ("medium", "high")
    assert "93 % of class class1 have 75, 0 % of the others" in found.sentence
    assert 0.4 < found.effect.value < 0.6
    assert found.effect.low is not None
    assert found.effect.low < found.effect.value
    assert found.null.q is not None
    assert found.null.q < 1e-6
    assert set(found.keys) <= {f"{row:05d}.jpg" for row in range(200, 386)}


def test_a_camera_of_one_class_is_found_and_missing_values_are_a_value() -> None:
    cameras = np.array([None] * 200 + ["A"] * 180 + [None] * 220, object)
    (found,) = find_predictive_properties(table_of(exif_camera=cameras))
    assert found.group == "exif_camera = A"
    missing = np.where(np.arange(600) < 200, np.nan, np.random.default_rng(0).normal(size=600))
    (found,) = find_predictive_properties(table_of(bytes_per_pixel=missing))
    assert (found.class_name, found.group) == ("class0", "bytes_per_pixel = missing")


def test_properties_that_follow_from_another_are_named_in_its_finding() -> None:
    generator = np.random.default_rng(0)
    quality = np.full(600, 90.0)
    quality[200:390] = 60
    columns = {
        "jpeg_quality": quality,
        "bytes": 1e5 * (quality / 90 + generator.normal(0, 0.03, 600)),
        "blockiness": 1.1 - quality / 900 + generator.normal(0, 0.01, 600),
    }
    camera = np.where(np.arange(600) < 180, "A", generator.choice(["B", "C"], 600)).astype(object)
    quality_found, camera_found = sorted(
        find_predictive_properties(table_of(**columns, exif_camera=camera)), key=lambda each: each.group or ""
    )[::-1]
    assert (quality_found.group, camera_found.group) == ("jpeg_quality = 60", "exif_camera = A")
    assert "So do blockiness and bytes, through the same images." in quality_found.sentence
    assert "through the same images" not in camera_found.sentence


@pytest.mark.parametrize("num_classes", [10, 40])
def test_a_trace_of_half_of_one_class_among_many_is_found_and_a_content_is_not(num_classes: int) -> None:
    sizes = (48,) * num_classes
    marked = np.arange(3 * 48, 3 * 48 + 24)
    quality, brightness = np.full(sum(sizes), 90.0), np.full(sum(sizes), 0.5)
    quality[marked], brightness[marked[:20]] = 80, 0.9
    (found,) = find_predictive_properties(table_of(sizes, jpeg_quality=quality, brightness=brightness))
    assert (found.class_name, found.group, found.num_concerned) == ("class3", "jpeg_quality = 80", 24)
    assert "tells class class3 from the others" in found.sentence
    assert found.effect.value == pytest.approx(0.5)
    assert found.severity == "high"


@pytest.mark.parametrize("sizes", [SIZES, (900, 100), (560, 20, 20), (48,) * 20])
def test_properties_that_say_nothing_are_not_reported_in_twenty_data_sets(sizes: tuple[int, ...]) -> None:
    num, found = sum(sizes), 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        columns = {f"measure{number}": generator.normal(size=num) for number in range(8)}
        columns["jpeg_quality"] = generator.choice([75.0, 90.0], num, p=[0.1, 0.9])
        columns["exif_camera"] = generator.choice(np.array(["A", "B", "C"], object), num)
        found += len(find_predictive_properties(table_of(sizes, seed, **columns)))
    assert found <= 1  # a false discovery rate of 1 % in each of the data sets


def test_what_an_image_shows_weighs_less_than_how_it_was_stored() -> None:
    values = np.concatenate([np.zeros(200), np.ones(200), np.full(200, 2.0)]) + np.random.default_rng(
        0
    ).normal(0, 0.2, 600)
    brightness, width = find_predictive_properties(table_of(brightness=values, width=values))
    assert {brightness.severity, width.severity} == {"low", "high"}


@pytest.mark.parametrize("sizes", [(50,), (19, 600), ()])
def test_one_class_or_few_images_give_no_finding(sizes: tuple[int, ...]) -> None:
    assert find_predictive_properties(table_of(sizes, jpeg_quality=np.arange(float(sum(sizes))))) == []


def test_numbers_are_divided_into_groups_of_about_equal_size_with_names() -> None:
    numbers, names = group_numbers(np.array([*range(100), np.nan]), 4)
    assert len(names) == 5
    assert (names[0].split(" to ")[0], names[-2].split(" to ")[1], names[-1]) == ("0", "99", "missing")
    assert np.bincount(numbers).max() <= 27
    assert numbers[-1] == len(names) - 1
    numbers, names = group_numbers(np.array([3.0, 3.0, 7.0]), 4)
    assert (numbers.tolist(), names) == ([0, 0, 1], ("3", "7", "missing"))
