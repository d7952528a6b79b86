"""The verdict on maps: passed by maps that depend on weights and places, refused with a reason by all others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lightwell import LocalEngine, Plan, run_batch_job
from lightwell.models.audits.gradcam.job import GradCamAudit
from lightwell.models.audits.gradcam.trust import Trust, judge
from lightwell.models.audits.gradcam.trust_checks import trust_rows
from lightwell.models.audits.gradcam.trust_stage import sample_keys
from lightwell.pipeline.jobs.progress import SilentConsole

GOOD = {
    "randomized_third": 0.1,
    "randomized_two_thirds": 0.0,
    "randomized_all": -0.1,
    "mirrored": 0.8,
    "second_method": 0.6,
    "patch": 1.0,
    "deletion": 0.2,
    "deletion_random": 0.4,
    "insertion": 0.6,
    "insertion_random": 0.5,
}


def records(values: Mapping[str, float], num: int = 12) -> pa.Table:
    noise = np.random.default_rng(0).normal(scale=0.01, size=num)
    columns = {
        name: np.full(num, value) + (noise if name != "patch" else 0) for name, value in values.items()
    }
    return pa.Table.from_batches([trust_rows([f"{row}.jpg" for row in range(num)], columns)])


def maps(num: int = 12, num_unusable: int = 0) -> pa.Table:
    blank = [row < num_unusable for row in range(num)]
    keys = [f"{row}.jpg" for row in range(num)]
    return pa.table({"key": keys, "blank": blank, "tied": [False] * num, "no_map": [False] * num})


def test_good_maps_are_trusted() -> None:
    trust = judge(records(GOOD), maps(), 0)
    assert trust.trusted
    assert trust.reasons == ()
    assert trust.insertion_gain == pytest.approx(0.1)
    assert trust.second_method == pytest.approx(0.6, abs=0.01)
    assert [check.passed for check in trust.checks] == [True] * 5
    assert Trust.from_dict(json.loads(json.dumps(trust.to_dict()))) == trust


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"randomized_all": 0.9}, "maps hardly change when the weights are random"),
        ({"patch": 0.0}, "maps change where the image does in only 0 %"),
        ({"deletion": 0.4}, "does not lower the probability faster than random order"),
        ({"mirrored": -0.2}, "nothing to do with the mirrored maps"),
    ],
)
def test_a_failed_check_is_the_reason(change: dict[str, float], reason: str) -> None:
    trust = judge(records(GOOD | change), maps(), 0)
    assert trust.trusted is False
    assert len(trust.reasons) == 1
    assert reason in trust.reasons[0]


@pytest.mark.parametrize(("num_following", "trusted"), [(1, False), (3, False), (14, True), (32, True)])
def test_a_patch_check_fails_only_if_its_interval_is_below_half(num_following: int, trusted: bool) -> None:
    following = np.arange(32) < num_following
    columns = {name: np.full(32, value) for name, value in GOOD.items()} | {"patch": following.astype(float)}
    columns["deletion"] += np.linspace(-0.01, 0.01, 32)
    checked = pa.Table.from_batches([trust_rows([f"{row}.jpg" for row in range(32)], columns)])
    assert judge(checked, maps(32), 0).trusted is trusted


def test_mostly_unusable_maps_are_not_trusted_however_few_were_checked() -> None:
    trust = judge(records(GOOD, 2), maps(12, 10), 0)
    assert trust.trusted is False
    assert trust.reasons[0].startswith("83 % of the maps have no positive evidence")


def test_few_images_give_no_verdict_and_a_network_that_overflows_is_judged_by_what_is_finite() -> None:
    few = judge(records(GOOD, 11), maps(), 0)
    assert few.trusted is None
    assert few.reasons == (
        "the maps of fewer than 12 images were to be checked; raise trust_images, or audit more images",
    )
    assert judge(records({}), maps(), 0).trusted is None
    overflow = judge(records(GOOD | {"randomized_all": np.nan, "randomized_two_thirds": 0.9}), maps(), 0)
    assert overflow.checks[0].value == pytest.approx(0.9, abs=0.01)
    assert overflow.trusted is False


def test_the_sample_depends_on_keys_and_seed_only() -> None:
    everything = maps(40, 10)
    chosen = sample_keys(everything, 14, seed=1)
    reverse = everything.take(pa.array(range(39, -1, -1)))
    assert sample_keys(reverse, 14, seed=1) == chosen
    assert len(chosen) == 14
    assert sample_keys(everything, 14, seed=2) != chosen
    assert not {f"{row}.jpg" for row in range(10)} & set(chosen), "maps without evidence"
    assert len(sample_keys(everything, 100, seed=1)) == 30
    assert sample_keys(everything, 11, seed=1) == (), "too few for a verdict"


def test_an_audit_trusts_maps_of_a_trained_network(marked: tuple[Plan, Path], tmp_path: Path) -> None:
    """Every check has a value."""
    plan, checkpoint = marked
    job = GradCamAudit(plan=plan, checkpoint=checkpoint, gallery=0, trust_images=16)
    findings = run_batch_job(job, LocalEngine(num_threads=1), tmp_path, SilentConsole())
    trust: dict[str, Any] = json.loads((tmp_path / "findings.json").read_text())["trust"]
    assert trust["num_images"] == 16
    assert {check["name"]: check["value"] is None for check in trust["checks"]} == dict.fromkeys(
        ["randomized weights", "patch", "deletion", "mirrored image", "usable maps"], False
    )
    assert trust["trusted"] is True
    assert trust["second_method"] > 0
    assert findings["trust"] == trust


def test_the_size_of_the_sample_changes_the_checks_but_not_the_maps(plan: Plan, checkpoint: Path) -> None:
    job = GradCamAudit(plan=plan, checkpoint=checkpoint)
    fewer = job.model_copy(update={"trust_images": 2})
    assert [a.fingerprint() == b.fingerprint() for a, b in zip(job.stages, fewer.stages, strict=True)][
        :2
    ] == [True, False]
