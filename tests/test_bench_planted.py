"""Figures of the planted benchmark follow from its outcomes: which marks count, recalls at equal alarms, images to open."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.planted import (
    OUTCOMES,
    Outcome,
    conditions,
    details,
    false_alarms,
    opened_by,
    recall,
    threshold_of,
)
from image_tables import image_table
from lightwell.models.audits.calibration.condition import Condition, Experiment
from lightwell.models.audits.calibration.plants import Mark

LOGO = asdict(Mark("logo", 0.01))


def outcome(**changes: Any) -> Outcome:
    usual: dict[str, Any] = {
        "mark": LOGO,
        "prevalence": 0.2,
        "leak": 0.0,
        "relies": True,
        "found": True,
        "confirmed": True,
        "localisation": 1.0,
        "opened": 0.0,
        "false_alarms": 0,
        "num_classes": 2,
        "target": 1,
        "class_scores": {"spray": [0.1, 0.9]},
        "baseline_opened": {"spray": 3.0},
    }
    return Outcome(**(usual | changes))


TWINS = [
    outcome(mark=None, relies=False, class_scores={"spray": [score, score / 2]})
    for score in np.linspace(0, 1, 100)
]


def test_marks_count_if_relied_on_large_frequent_opaque_in_place_and_in_one_class_only() -> None:
    assert outcome().counts
    for changes in (
        {"relies": False},
        {"prevalence": 0.1},
        {"leak": 0.01},
        {"mark": None},
        *(
            {"mark": LOGO | each}
            for each in ({"area": 0.005}, {"opacity": 0.4}, {"position": "random"}, {"kind": "tint"})
        ),
    ):
        assert not outcome(**changes).counts


def test_recall_is_that_of_the_marks_that_count() -> None:
    outcomes = [outcome(), outcome(found=False), outcome(found=False, relies=False), *TWINS]
    assert recall(outcomes) == 50
    assert math.isnan(recall(TWINS))


def test_a_baseline_alarms_for_one_of_a_hundred_classes_of_clean_twins() -> None:
    limit = threshold_of("spray", TWINS)
    assert sum(score > limit for twin in TWINS for score in twin.class_scores["spray"]) == 2  # of 200
    found = [outcome(class_scores={"spray": [0.0, score]}) for score in (0.5, 0.99, 1.1, 1.2)]
    assert recall([*found, *TWINS], "spray") == 75


def test_false_alarms_are_those_of_clean_twins_for_a_hundred_classes() -> None:
    assert false_alarms([replace(TWINS[0], false_alarms=3), *TWINS[1:], outcome(false_alarms=9)]) == 1.5


def test_images_are_opened_class_by_class_from_the_highest_score() -> None:
    table = image_table(2, 5)
    is_marked = np.isin(np.arange(10), (7, 9))
    made = Experiment(
        Condition(Mark("logo"), target=1),
        table,
        np.zeros((10, 8, 8, 3), np.uint8),
        is_marked,
        None,
        [],
        1.0,
        None,
        None,
    )
    first, second = (0.2, np.arange(5)), (0.8, np.array([5, 6, 7, 8, 9]))
    assert opened_by([first, second], made) == 2
    assert opened_by([(0.9, np.arange(5)), second], made) == 7


def test_there_are_twenty_clean_twins_and_every_kind_of_mark_in_every_class() -> None:
    from lightwell.models.audits.calibration.plants import KINDS

    every = list(conditions(10))
    assert sum(each.mark is None for each in every) >= 20
    marked = [each for each in every if each.mark is not None]
    assert {each.mark.kind for each in marked if each.mark} == set(KINDS)
    assert {each.target for each in marked} == set(range(10))
    assert len({(each.seed, each.target) for each in marked}) == len(marked)


def test_the_table_has_a_row_for_each_kind_of_condition(tmp_path: Path) -> None:
    outcomes = [
        outcome(),
        outcome(found=False, localisation=None, opened=40.0),
        outcome(prevalence=0.5),
        TWINS[0],
    ]
    (tmp_path / OUTCOMES).write_text(json.dumps([asdict(each) for each in outcomes]))
    rows = details(tmp_path)
    assert [(row["mark"], row["prevalence"], row["runs"], row["found"]) for row in rows] == [
        ("logo", "20 %", "2", "1"),
        ("logo", "50 %", "1", "1"),
        ("clean twin", "", "1", "0"),
    ]
    assert rows[0]["images to open"] == "20.0"
    assert {tuple(row) for row in rows} == {tuple(rows[0])}


@pytest.mark.parametrize("name", ["class-mean z-score", "activation clustering", "spray"])
def test_a_baseline_ranks_a_marked_class_first_if_the_mark_is_what_it_looks_at(name: str) -> None:
    from benchmarks.shortcut_baselines import BASELINES
    from image_tables import plant

    table = image_table(3, 40)
    rows = np.arange(40, 55)
    plant(table, rows)
    table.features[rows] += 6
    images = np.random.default_rng(0).integers(90, 110, (120, 32, 32, 3), dtype=np.uint8)
    images[rows, 20:, :12] = 255
    is_marked = np.isin(np.arange(120), rows)
    made = Experiment(Condition(Mark("logo"), target=1), table, images, is_marked, None, [], 1.0, None, None)
    ranked = [BASELINES[name](made, number) for number in range(3)]
    assert int(np.argmax([score for score, _ in ranked])) == 1
    assert is_marked[ranked[1][1][:10]].mean() > is_marked[40:80].mean()
