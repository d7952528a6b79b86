"""Slices: scores against a loop, planted slices found, chance and differences of classes not."""

from __future__ import annotations

import itertools

import numpy as np
from lightwell.models.audits.findings.slices import (
    ALPHA,
    MIN_ROWS,
    NUM_PERMUTATIONS,
    conditions_of,
    permuted_within,
    worst_slices,
)
from lightwell.pipeline.rng import numpy_generator


def columns(num: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    generator = numpy_generator(seed)
    return {
        "brightness": generator.random(num),
        "format": generator.choice(np.array(["JPEG", "PNG"], object), num),
        "is_gray": generator.integers(0, 2, num).astype(np.float64),
    }


def test_the_best_slice_has_the_highest_score_of_all_counted_one_by_one() -> None:
    table = columns()
    flags = (table["format"] == "PNG") & (table["brightness"] < 0.25)
    conditions = conditions_of(table)
    rate, num = flags.mean(), len(flags)

    def score(rows: np.ndarray) -> float:
        return float(ALPHA * (flags[rows].mean() / rate - 1) - (1 - ALPHA) * (num / rows.sum() - 1))

    singles = [c.rows for c in conditions]
    pairs = [a.rows & b.rows for a, b in itertools.combinations(conditions, 2) if a.column != b.column]
    expected = max(score(rows) for rows in [*singles, *pairs] if rows.sum() >= MIN_ROWS)
    best = worst_slices(conditions, flags, np.zeros(num, np.int64), numpy_generator(1))[0]
    assert np.isclose(best.score, expected, rtol=1e-5)
    assert {c.column for c in best.conditions} == {"format", "brightness"}
    assert best.p == 1 / (NUM_PERMUTATIONS + 1)
    assert (flags[best.rows]).mean() > 0.8


def test_a_value_that_many_rows_have_is_a_condition_beside_ranges() -> None:
    quality = numpy_generator(0).integers(60, 96, 400).astype(np.float64)
    quality[:100] = 75
    texts = [condition.text for condition in conditions_of({"quality": quality})]
    assert [text for text in texts if text.removeprefix("quality is ").isdigit()] == ["quality is 75"]
    assert len(texts) == 5
    assert not any(
        text.startswith("brightness is 0.")
        for text in (condition.text for condition in conditions_of(columns()))
    )


def test_a_single_condition_is_preferred_where_a_second_adds_nothing() -> None:
    table = columns()
    flags = (table["format"] == "PNG") & (numpy_generator(2).random(400) < 0.5)
    best = worst_slices(conditions_of(table), flags, np.zeros(400, np.int64), numpy_generator(1))[0]
    assert best.text == "format is PNG"


def test_flags_that_mean_nothing_give_no_significant_slice() -> None:
    p_values = []
    for seed in range(10):
        flags = numpy_generator(seed + 50).random(400) < 0.2
        found = worst_slices(
            conditions_of(columns(seed=seed)), flags, np.zeros(400, np.int64), numpy_generator(seed)
        )
        p_values += [each.p for each in found[:1]]
    assert min(p_values) > 0.01
    assert max(p_values) > 0.3


def test_a_difference_between_classes_alone_is_no_significant_slice() -> None:
    """PNG files are of class 1, whose images are predicted wrongly more often whatever their format."""
    generator = numpy_generator(3)
    strata = generator.integers(0, 2, 400)
    table = columns() | {"format": np.where(strata == 1, "PNG", "JPEG").astype(object)}
    flags = generator.random(400) < np.where(strata == 1, 0.5, 0.05)
    within = worst_slices(conditions_of(table), flags, strata, numpy_generator(1))[0]
    across = worst_slices(conditions_of(table), flags, np.zeros(400, np.int64), numpy_generator(1))[0]
    assert across.p == 1 / (NUM_PERMUTATIONS + 1)
    assert within.p > 0.05


def test_flags_are_permuted_within_strata() -> None:
    strata, flags = np.repeat([0, 1], 50), np.arange(100) < 60
    for permuted in permuted_within(flags, strata, numpy_generator(1))[:20]:
        assert permuted[:50].sum() == 50
        assert permuted[50:].sum() == 10


def test_conditions_cover_numbers_strings_and_unknown_values() -> None:
    values = np.r_[np.arange(100.0), np.full(25, np.nan)]
    found = conditions_of(
        {
            "size": values,
            "format": np.array(["a"] * 100 + ["b"] * 5 + ["c"] * 20, object),
            "same": np.ones(125),
        }
    )
    assert [c.text for c in found] == [
        "size is at most 24.75",
        "size is above 24.75 and at most 49.5",
        "size is above 49.5 and at most 74.25",
        "size is above 74.25",
        "format is a",
        "format is c",
    ]
    assert [int(c.rows.sum()) for c in found] == [25, 25, 25, 25, 100, 20]


def test_nothing_to_explain_gives_no_slices() -> None:
    conditions = conditions_of(columns())
    for flags in (np.zeros(400, np.bool_), np.ones(400, np.bool_)):
        assert worst_slices(conditions, flags, np.zeros(400, np.int64), numpy_generator(1)) == []
    assert worst_slices([], np.arange(400) < 5, np.zeros(400, np.int64), numpy_generator(1)) == []
