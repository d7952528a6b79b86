"""The detection limit is read from experiments whose probe relies on its mark, with an interval, or the reason is told."""

from __future__ import annotations

import numpy as np
import pytest
from lightwell.models.audits.calibration.detection_limit import (
    PROBABILITY,
    Limit,
    Outcome,
    detection_limit,
    fit_logistic,
    limit_sentence,
    limit_to_dict,
)

AREAS, PREVALENCES = (0.01, 0.02, 0.04, 0.08), (0.25, 1.0)
FACTS = {
    "mark": "logo",
    "largest_area": 0.08,
    "classes": ["a", "b"],
    "num_images": 80,
    "images_per_class": 20,
}


def outcomes(chance: dict[tuple[float, float], float], num: int, *, relies: bool = True) -> list[Outcome]:
    """Return experiments of which a given share is found."""
    return [
        Outcome(area, prevalence, relies, found=number < share * num, confirmed=False)
        for (area, prevalence), share in chance.items()
        for number in range(num)
    ]


def logistic(area: float, prevalence: float) -> float:
    """Return a probability that is 0.9 at 3 % of the image and all of a class, and at 6 % and a quarter of the class."""
    above = np.log2(area / 0.03) + np.log2(prevalence) / 2
    return float(1 / (1 + np.exp(-(np.log(9) + 2 * above))))


def test_the_limit_of_a_logistic_detector_is_recovered() -> None:
    chance = {(area, share): logistic(area, share) for area in AREAS for share in PREVALENCES}
    quarter, whole = detection_limit(outcomes(chance, 400), seed=0)
    assert (quarter.prevalence, whole.prevalence) == PREVALENCES
    for limit, area in ((quarter, 0.06), (whole, 0.03)):
        assert limit.area == pytest.approx(area, rel=0.05)
        assert limit.low is not None
        assert limit.high is not None
        assert limit.low < area < limit.high


def test_few_experiments_give_a_wide_interval() -> None:
    chance = {(area, share): logistic(area, share) for area in AREAS for share in PREVALENCES}
    few, many = (detection_limit(outcomes(chance, num), seed=0)[1] for num in (5, 400))
    assert few.low is not None
    assert many.low is not None
    assert few.low < many.low
    assert few.high is None or (many.high is not None and few.high > many.high)


def test_marks_that_are_never_found_have_no_limit() -> None:
    chance = {(area, share): 0.0 for area in AREAS for share in PREVALENCES}
    found = limit_to_dict(outcomes(chance, 5), 0, "", FACTS)
    assert [(each["area"], each["high"]) for each in found["limits"]] == [(None, None)] * 2
    assert found["sentence"] == (
        "A sticker on which a probe of this network relies is caught with probability 0.9 if it covers, in 25 % of its class's "
        "images more than 8 % of the image; in 100 % of its class's images more than 8 % of the image. Measured with 20 "
        "audited images per class."
    )


def test_experiments_without_reliance_do_not_count_and_the_reason_is_told() -> None:
    chance = {(area, share): 1.0 for area in AREAS for share in PREVALENCES}
    idle = outcomes(chance, 5, relies=False)
    found = limit_to_dict([*idle, *outcomes({(0.08, 1.0): 1.0}, 3)], 0, "", FACTS)
    assert found["limits"] == []
    assert found["reason"].startswith("only 3 of 43 probes relied on the planted mark")
    assert found["experiments"][-1] == {
        "area": 0.08,
        "prevalence": 1.0,
        "num": 8,
        "num_relied": 3,
        "num_found": 3,
        "num_confirmed": 0,
    }


def test_the_limit_is_the_same_for_the_same_seed() -> None:
    chance = {(area, share): logistic(area, share) for area in AREAS for share in PREVALENCES}
    given = outcomes(chance, 6)
    assert detection_limit(given, 1) == detection_limit(given, 1)


def test_a_fit_weighted_by_counts_equals_that_of_repeated_rows() -> None:
    generator = np.random.default_rng(0)
    terms = np.column_stack([np.ones(12), generator.normal(size=(12, 2))])
    found, counts = generator.integers(0, 2, 12).astype(float), generator.integers(0, 4, 12)
    repeated = np.repeat(np.arange(12), counts)
    once = fit_logistic(terms[repeated], found[repeated], np.ones((1, len(repeated))))
    assert fit_logistic(terms, found, counts[None].astype(float)) == pytest.approx(once, abs=1e-9)


def test_the_sentence_has_area_and_interval() -> None:
    sentence = limit_sentence([Limit(0.2, 0.03, 0.011, None), Limit(1.0, None, 0.02, None)], "", FACTS)
    assert (
        "in 20 % of its class's images at least 3 % of the image (95 % interval 1.1 % to more than 8 %)"
        in sentence
    )
    assert "in 100 % of its class's images more than 8 % of the image (95 % interval from 2 %)" in sentence


def test_a_sentence_without_a_limit_gives_the_reason() -> None:
    assert PROBABILITY == 0.9
    assert limit_sentence((), "no labels", FACTS) == "The detection limit was not measured: no labels."
