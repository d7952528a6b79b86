"""Learning-rate schedules, against torch's and their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightwell.models.training.optimization.schedule import LRSchedule, num_plateaus
from lightwell.pipeline.errors import PlanError

EPOCHS = 8


def factors(schedule: LRSchedule, count: int = 5) -> list[float]:
    return [schedule.factor(EPOCHS * done / (count - 1), EPOCHS) for done in range(count)]


def test_polynomial_is_linear_by_default_and_ends_at_min_lr() -> None:
    assert factors(LRSchedule(kind="polynomial")) == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert factors(LRSchedule(kind="polynomial", power=2)) == pytest.approx([1, 0.5625, 0.25, 0.0625, 0])
    ends = [
        LRSchedule(kind=kind, min_lr=0.02).factor(EPOCHS, EPOCHS, peak=0.1)
        for kind in ("polynomial", "cosine")
    ]
    assert ends == pytest.approx([0.2, 0.2])


def test_one_cycle_is_torchs() -> None:
    """Torch's peak is at step 25 of 0..100; momentum is not cycled."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        1.0,
        total_steps=101,
        pct_start=26 / 101,
        div_factor=25,
        final_div_factor=4000,
        cycle_momentum=False,
    )
    ours = LRSchedule(kind="one_cycle")
    for step in range(101):
        assert ours.factor(step, 100) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 100:
            theirs.step()


@settings(max_examples=50)
@given(
    st.lists(st.floats(0.01, 1) | st.sampled_from([0.1, 0.5]), max_size=30),
    st.integers(0, 4),
    st.sampled_from(["loss", "accuracy"]),
)
def test_plateau_is_torchs(values: list[float], patience: int, metric: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "min" if metric == "loss" else "max", factor=0.5, patience=patience, eps=0
    )
    ours = LRSchedule(kind="plateau", step_factor=0.5, patience=patience)
    for epoch, value in enumerate(values):
        theirs.step(value)
        history = [{metric: each} for each in values[: epoch + 1]]
        got = ours.factor(epoch + 1.5, 99, history=history, monitor=metric)
        assert got == pytest.approx(optimizer.param_groups[0]["lr"])


def test_an_undefined_metric_is_no_improvement() -> None:
    assert num_plateaus([0.5, None, None, None], 1, is_loss=False) == 1
    assert num_plateaus([None, None], 1, is_loss=False) == 1


def test_steps_and_plateaus_do_not_fall_below_min_lr() -> None:
    step = LRSchedule(kind="step", step_epochs=1, min_lr=0.05)
    assert step.factor(5, EPOCHS, peak=1.0) == 0.05
    history = [{"loss": 1.0}] * 9
    plateau = LRSchedule(kind="plateau", patience=0, min_lr=0.05)
    assert plateau.factor(9, EPOCHS, peak=1.0, history=history) == 0.05


def test_googlenets_rate_falls_by_4_percent_every_8_epochs() -> None:
    schedule = LRSchedule(kind="step", step_epochs=8, step_factor=0.96)
    assert [schedule.factor(e, 90) for e in (0, 7.9, 8, 80)] == pytest.approx([1, 1, 0.96, 0.96**10])


def test_every_schedule_stays_within_0_and_1() -> None:
    for kind in ("constant", "cosine", "polynomial", "one_cycle", "step", "plateau"):
        values = factors(LRSchedule(kind=kind, step_epochs=2), 41)
        assert all(0 <= value <= 1 and math.isfinite(value) for value in values), kind
        assert max(values) == pytest.approx(1), kind


def test_one_cycle_has_its_own_warm_up() -> None:
    with pytest.raises(PlanError, match=r"warmup_epochs: expected 0 with one_cycle, .* got 2; remove it"):
        LRSchedule(kind="one_cycle", warmup_epochs=2)
