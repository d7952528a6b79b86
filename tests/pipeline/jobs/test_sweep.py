"""Sweep files: which trials they make, and which are refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lightwell.models.training.job import Classify
from lightwell.pipeline.errors import PlanError
from lightwell.pipeline.index.build import build_index
from lightwell.pipeline.jobs.sweep import Range, Sweep, load_trials, with_value
from pictures import make_folder


@pytest.fixture(scope="module")
def job_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    build_index(make_folder(folder / "photos", num_images=12)).save(folder / "index.parquet")
    (folder / "plan.yaml").write_text(
        "index: index.parquet\naugment: [{RandomResizedCrop: {size: [32, 32], scale: [0.5, 1.0]}}]\n"
    )
    content = {"plan": "plan.yaml", "model": {"name": "squeezenet1_1", "weights": "none"}}
    (folder / "job.yaml").write_text(yaml.safe_dump(content))
    return folder / "job.yaml"


def test_without_a_number_of_trials_every_combination_is_one() -> None:
    sweep = Sweep(keys={"epochs": [1, 2], "schedule": ["cosine", {"kind": "step", "step_epochs": 2}]})
    assert sweep.values() == [
        {"epochs": 1, "schedule": "cosine"},
        {"epochs": 1, "schedule": {"kind": "step", "step_epochs": 2}},
        {"epochs": 2, "schedule": "cosine"},
        {"epochs": 2, "schedule": {"kind": "step", "step_epochs": 2}},
    ]


def test_draws_follow_from_the_seed_and_more_trials_repeat_the_first() -> None:
    keys: dict[str, Any] = {"optimizer.lr": {"min": 1e-4, "max": 1e-2, "log": True}, "epochs": [1, 2]}
    ten, more, other = (
        Sweep(keys=keys, trials=trials, seed=seed).values() for trials, seed in ((10, 0), (40, 0), (10, 1))
    )
    assert more[:10] == ten != other
    assert {values["epochs"] for values in more} == {1, 2}
    exponents = sorted(math.log10(values["optimizer.lr"]) for values in more)
    assert -4 <= exponents[0] < -3.5
    assert -2.5 < exponents[-1] <= -2


@given(st.integers(-9, 9), st.integers(1, 9), st.floats(0, 1, exclude_max=True))
def test_numbers_of_a_range_lie_in_it_and_stay_whole(low: int, length: int, share: float) -> None:
    whole = Range(min=low, max=low + length).at(share)
    assert isinstance(whole, int)
    assert low <= whole <= low + length
    assert low <= Range(min=float(low), max=low + length).at(share) <= low + length
    assert 1 <= Range(min=1, max=1 + length, log=True).at(share) <= 1 + length


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keys": {}}, "keys"),
        ({"keys": {"job": ["classify"]}}, "expected keys of the job"),
        ({"keys": {"monitor": ["loss"]}}, "expected keys of the job"),
        ({"keys": {"optimizer..lr": [1]}}, "expected keys of the job"),
        ({"keys": {"epochs": []}}, "epochs: expected at least one value"),
        (
            {"keys": {"epochs": {"min": 1, "max": 3}}},
            "trials: expected a number of draws from the range of epochs",
        ),
        ({"keys": {"epochs": {"min": 3, "max": 3}}, "trials": 2}, "expected min < max, got min 3 and max 3"),
        ({"keys": {"a": {"min": 0, "max": 3, "log": True}}, "trials": 2}, "expected 0 < min < max with log"),
        ({"keys": {name: list(range(100)) for name in "abc"}}, "expected at most 10,000 combinations"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(content: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Sweep.model_validate(content)


def test_values_go_into_sections_lists_and_the_plan(job_file: Path) -> None:
    sweep = Sweep(
        keys={
            "optimizer.lr": [0.01, 0.02],
            "plan.batch.size": [4],
            "plan.augment.0.RandomResizedCrop.scale": [[0.2, 1.0]],
        }
    )
    trials = load_trials(sweep, job_file, default="classify")
    assert len({trial.name for trial in trials}) == 2
    jobs = [trial.job for trial in trials]
    assert all(isinstance(job, Classify) for job in jobs)
    assert [job.optimizer.lr for job in jobs if isinstance(job, Classify)] == [0.01, 0.02]
    assert jobs[0].plan.batch.size == 4
    assert jobs[0].plan.augment[0].options == {"size": [32, 32], "scale": [0.2, 1.0]}


def test_equal_trials_count_once_and_keep_their_name(job_file: Path) -> None:
    first = load_trials(Sweep(keys={"epochs": [1, 2, 1]}), job_file, default="classify")
    again = load_trials(Sweep(keys={"epochs": [2, 3]}), job_file, default="classify")
    assert len(first) == 2
    assert first[1].name == again[0].name


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epochz": [1]}, "sweep: epochz 1: .*epochz"),
        ({"epochs": [0]}, "sweep: epochs 0: .*epochs"),
        (
            {"model.name.size": [1]},
            "expected a section with the key 'size' in the job file, got 'squeezenet1_1'",
        ),
        ({"plan.augment.7.p": [1]}, "expected a section with the key '7'"),
    ],
)
def test_values_that_the_job_refuses_name_the_trial(job_file: Path, keys: Any, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        load_trials(Sweep(keys=keys), job_file, default="classify")


def test_other_values_are_kept_and_the_original_is_not_changed() -> None:
    content = {"a": [{"b": 1, "c": 2}], "d": 3}
    assert with_value(content, ["a", "0", "b"], 9, "a.0.b") == {"a": [{"b": 9, "c": 2}], "d": 3}
    assert with_value(None, ["x", "y"], 1, "x.y") == {"x": {"y": 1}}
    assert content == {"a": [{"b": 1, "c": 2}], "d": 3}
