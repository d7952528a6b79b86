"""The learning-rate range test: its curve, where it ends and what it suggests."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from lightwell.models.training.optimization.lr_range import LAST_RATE, RangeTest
from lightwell.pipeline.errors import RunError


def parabola(center: float) -> RangeTest:
    """A loss that falls until a rate and rises behind it, on a logarithmic axis."""
    return RangeTest.run(lambda rate: 1 + min(abs(math.log10(rate / center)), 4) ** 2)


def test_rates_rise_by_the_same_factor_to_the_last_one() -> None:
    found = RangeTest.run(lambda _: 1.0)
    ratios = [b / a for a, b in zip(found.rates, found.rates[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * 99)
    assert (found.rates[0], found.rates[-1]) == pytest.approx((1e-7, LAST_RATE))
    assert found.losses == pytest.approx([1.0] * 100)


def test_suggestions_are_in_the_falling_part_and_the_minimum_is_divided_by_ten() -> None:
    found = parabola(0.01)
    lowest = found.rates[found.losses.index(min(found.losses))]
    assert found.minimum == pytest.approx(lowest / 10)
    assert 1e-6 < found.steepest < lowest
    assert found.steepest < found.valley < lowest
    assert [*found.suggestions] == ["valley", "steepest", "minimum/10"]


def test_a_smaller_best_rate_gives_smaller_suggestions() -> None:
    low, high = parabola(1e-3).suggestions, parabola(1e-1).suggestions
    assert all(low[name] < high[name] for name in low)


def test_the_test_ends_when_the_loss_explodes_or_is_not_finite() -> None:
    exploding = RangeTest.run(lambda rate: 1.0 if rate < 1e-2 else 1e6)
    assert 1e-2 <= exploding.rates[-1] < 2e-2
    diverging = RangeTest.run(lambda rate: 1.0 if rate < 1e-2 else math.nan)
    assert diverging.rates[-1] < 1e-2


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(RunError, match="finite losses in at least 10 steps, got 0"):
        RangeTest.run(lambda _: math.nan)


def test_a_short_curve_is_used_whole() -> None:
    losses = iter([1 - 0.01 * n for n in range(12)])
    found = RangeTest.run(lambda _: next(losses, None))
    assert len(found.rates) == 12
    assert found.minimum == pytest.approx(found.rates[-1] / 10)


def test_curve_and_picture_are_written(tmp_path: Path) -> None:
    found = parabola(0.01)
    assert json.loads(json.dumps(found.as_dict()))["suggestions"] == found.suggestions
    found.draw(tmp_path / "lr_finder.png")
    assert (tmp_path / "lr_finder.png").read_bytes().startswith(b"\x89PNG")
